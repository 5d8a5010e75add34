"""Reading numbers and lines: the trend of a series, and which lines say the same."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.incident.clustering import masked, patterns
from tools.incident.statistics import Shape, percentile, shape
from tools.incident.times import duration
from tools.records import LogLine

STEP = 10.0


def a_series(*values: float) -> list[tuple[float, float]]:
    return [(STEP * index, value) for index, value in enumerate(values)]


def noisy(values: list[float], size: float) -> list[float]:
    source = random.Random(3)
    return [value + source.uniform(-size, size) for value in values]


def shape_of(values: list[float], floor: float = 0.0) -> Shape:
    return shape(a_series(*values), floor)


def test_it_calls_noise_flat() -> None:
    assert shape_of(noisy([100.0] * 300, 6)).trend == "flat"
    assert shape_of([0.0] * 50).trend == "flat"
    assert shape_of(noisy([0.002] * 300, 0.001), floor=0.01).trend == "flat"


def test_it_finds_when_a_rise_began() -> None:
    found = shape_of(noisy([0.0] * 130 + [0.15 * n for n in range(230)], 0.5))
    assert found.trend == "rising"
    assert found.changed_at == pytest.approx(1300, abs=60)
    assert found.slope_per_minute == pytest.approx(0.9, abs=0.05)
    assert found.before == pytest.approx(0, abs=0.5)


def test_it_knows_a_rise_that_was_always_there() -> None:
    found = shape_of([float(n) for n in range(100)])
    assert found.trend == "rising"
    assert found.changed_at is None
    assert found.slope_per_minute == pytest.approx(6)
    assert shape_of([100.0 - n for n in range(100)]).trend == "falling"


@pytest.mark.parametrize("at", [20, 180, 340])
def test_it_finds_a_step(at: int) -> None:
    up = shape_of(noisy([0.002] * at + [0.34] * (360 - at), 0.001), floor=0.01)
    assert up.trend == "step_up"
    assert up.changed_at == at * STEP
    assert up.before == pytest.approx(0.002, abs=0.001)
    assert shape_of(noisy([10.0] * at + [2.0] * (360 - at), 0.3)).trend == "step_down"


def test_it_tells_a_habit_from_an_incident() -> None:
    hourly = [33.0 if n % 120 < 28 else 22.0 for n in range(360)]
    assert shape_of(noisy(hourly, 1.0), floor=2.5).trend == "oscillating"


def test_it_sees_a_spike_that_is_over() -> None:
    found = shape_of(noisy([5.0] * 200 + [80.0] * 12 + [5.0] * 148, 0.4))
    assert found.trend == "spike"
    assert found.changed_at == 200 * STEP


def test_it_sees_that_a_remedy_worked() -> None:
    rise = [0.0] * 120 + [0.15 * n for n in range(220)]
    at_once = shape_of(noisy([*rise, *[0.5] * 6], 0.3))
    assert at_once.trend == "step_down"
    assert at_once.changed_at == pytest.approx(3400, abs=20)
    slowly = shape_of(noisy([*rise, *[33 - 2.0 * n for n in range(16)], *[1.0] * 4], 0.3))
    assert slowly.trend == "falling"
    assert slowly.slope_per_minute < -5


def test_a_day_is_not_a_step() -> None:
    day = [100 + 20 * math.sin(2 * math.pi * n / 360) for n in range(360)]
    assert shape_of(noisy(day, 2)).trend not in ("step_up", "step_down")


@settings(deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), max_size=60), st.floats(0, 100))
def test_any_series_has_a_shape(values: list[float], floor: float) -> None:
    found = shape_of(values, floor)
    assert math.isfinite(found.slope_per_minute)
    times = [at for at, _ in a_series(*values)]
    assert found.changed_at is None or found.changed_at in times


@settings(deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values(values: list[float], share: float) -> None:
    assert percentile(values, share) in values


def test_percentiles_are_ranks() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.95), percentile(values, 1), percentile(values, 0)) == (95, 100, 1)


def a_line(
    at: float, message: str, level: str = "info", service: str = "api", version: str = "v1"
) -> LogLine:
    return LogLine(at, level, service, f"{service}-0", version, message, "", {})


def test_it_groups_lines_that_differ_in_numbers_and_names() -> None:
    lines = [
        a_line(1, "GET /orders/17 200 12ms"),
        a_line(2, "GET /orders/99 200 7ms"),
        a_line(3, "job 7 thumbnail done in 0.4s", service="worker"),
        a_line(4, "job 8 send_receipt done in 0.9s", service="worker"),
        a_line(5, "pool limit reached, connection timed out", "error", version="v2"),
        a_line(6, "pool limit reached, connection timed out", "error", version="v3"),
    ]
    found = patterns(lines)
    assert [(one.level, one.count) for one in found] == [("error", 2), ("info", 2), ("info", 2)]
    assert found[0].versions == {"v2": 1, "v3": 1}
    assert (found[0].first, found[0].last) == (5, 6)
    assert found[0].sample.version == "v3"
    assert found[1].text == "job <*> <*> done in <*>s"
    assert found[1].services == {"worker": 2}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("took 30013ms", "took <*>ms"),
        ("from 203.0.113.7:8000", "from <*>"),
        ("id 9f3c41b7a0d2e5f1 seen", "id <*> seen"),
        ("at 2026-11-22T07:00:00Z", "at <*>"),
        ("at 2026-11-22 07:07:32.749 UTC [7]", "at <*> [<*>]"),
        ("u 123e4567-e89b-12d3-a456-426614174000", "u <*>"),
        ("deadbeef coffee facade", "deadbeef coffee facade"),
        ("no numbers", "no numbers"),
    ],
)
def test_it_masks_what_varies(message: str, expected: str) -> None:
    assert masked(message) == expected


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=40))
def test_no_line_is_lost_in_grouping(messages: list[str]) -> None:
    lines = [a_line(float(n), message) for n, message in enumerate(messages)]
    found = patterns(lines)
    assert sum(one.count for one in found) == len(lines)
    assert all(one.first <= one.sample.at <= one.last for one in found)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2.5, "2.5 s"), (45, "45 s"), (300, "5 min"), (7200, "2 h"), (86400 * 3, "3 d")],
)
def test_it_writes_durations_as_people_do(seconds: float, words: str) -> None:
    assert duration(seconds) == words
