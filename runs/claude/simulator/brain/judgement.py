"""Is a number bad, and since when: what a single metric or log pattern says by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median

from runs.claude.simulator.brain.evidence import Pattern, Reading, number
from runs.claude.simulator.brain.words import amount, clock

_SIMILAR = 0.25  # within a quarter of yesterday is the same
_MOVED = 0.5  # half as much again is a change worth a look
_SOME_LINES = 3  # fewer lines of one kind in an hour happen on any day


def past(value: float | None, limit: float | None, direction: str) -> bool:
    """Whether a value has reached a limit."""
    if value is None or limit is None:
        return False
    return value <= limit if direction == "below" else value >= limit


def is_critical(reading: Reading) -> bool:
    """Beyond the critical threshold now."""
    return past(reading.current, reading.crit, reading.direction)


def is_raised(reading: Reading) -> bool:
    """Beyond a threshold now; for a metric without one, far from where it was. Not what yesterday had too."""
    if is_critical(reading):
        return True
    if reading.warn is not None or reading.crit is not None:
        return past(reading.current, reading.warn, reading.direction) and not is_usual(reading)
    return (
        reading.trend in {"rising", "step_up", "spike"} and growth(reading) > _MOVED and not is_usual(reading)
    )


def growth(reading: Reading) -> float:
    """How far the current value is from the normal one of the range, as a share of the normal one."""
    usual = normal(reading)
    if reading.current is None or usual is None:
        return 0.0
    return (reading.current - usual) / max(abs(usual), 1e-9)


def is_usual(reading: Reading) -> bool:
    """Whether the period it was compared with looked the same."""
    pairs = [(reading.average, baseline(reading, "avg")), (reading.high, baseline(reading, "max"))]
    known = [(now, then) for now, then in pairs if now is not None and then is not None]
    return bool(known) and all(abs(now - then) <= _SIMILAR * max(abs(then), 1e-9) for now, then in known)


def baseline(reading: Reading, name: str) -> float | None:
    """A statistic of the period it was compared with."""
    return number(reading.baseline.get(name))


def normal(reading: Reading) -> float | None:
    """The value before anything happened: the median of the range until the onset, or of its first fifth."""
    if reading.before is not None:
        return reading.before
    values = [value for _, value in reading.points]
    if not values:
        return reading.low
    start = onset(reading)
    before = [value for at, value in reading.points if start is None or at < start]
    if len(before) < 3:
        before = values[: max(3, len(values) // 5)]
    return median(before)


def onset(reading: Reading) -> datetime | None:
    """When it began to differ; None when it does not."""
    if reading.trend not in {"rising", "falling", "step_up", "step_down", "spike"} and not is_critical(
        reading
    ):
        return None
    if reading.step_at is not None:
        return reading.step_at
    values = [value for _, value in reading.points]
    if len(values) < 6:
        return None
    usual = median(values[: len(values) // 5 + 1])
    band = 0.12 * (max(values) - min(values))
    found: datetime | None = None
    for at, value in reversed(reading.points):
        if abs(value - usual) <= band:
            break
        found = at
    return found


def significant(pattern: Pattern) -> bool:
    """Failures that are more than the noise of any hour."""
    return pattern.is_failure and pattern.count >= _SOME_LINES


def began(patterns: Sequence[Pattern]) -> datetime | None:
    """The first line of any of the patterns."""
    return min((pattern.first for pattern in patterns if pattern.first), default=None)


def follows(event: datetime | None, cause: datetime | None, within: timedelta) -> bool:
    """Whether something began no earlier than a cause (two minutes of slack) and soon enough after it."""
    if event is None or cause is None:
        return False
    return cause - timedelta(minutes=2) <= event <= cause + within


def described(reading: Reading) -> str:
    """A reading in words: "db_pool_in_use of api is at 40, up from 12, since 06:41"."""
    subject = f"{reading.metric} of {reading.service}" + (f" {reading.label}" if reading.label else "")
    text = f"{subject} is at {amount(reading.current, reading.unit)}"
    usual, start = normal(reading), onset(reading)
    if reading.current is None or usual is None or start is None or abs(growth(reading)) < 0.1:
        return text
    way = "up" if reading.current > usual else "down"
    text += f", {way} from {amount(usual, reading.unit)}"
    if reading.trend.startswith("step"):
        return f"{text} in one step at {clock(start)}"
    return f"{text} since {clock(start)}"


def against_yesterday(reading: Reading) -> str:
    """A compared reading in words; "" when there is nothing to compare with."""
    then = baseline(reading, "avg")
    if then is None or reading.average is None:
        return ""
    now, before = amount(reading.average, reading.unit), amount(then, reading.unit)
    return (
        f"{reading.metric} of {reading.service} averages {now}, against {before} at the same time yesterday"
    )
