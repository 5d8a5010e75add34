"""Saying things: numbers with their units, times, lists, and a choice between ways to say it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime

_SECOND_STEPS = ((86400, "days"), (3600, "h"), (60, "min"))
_BYTE_STEPS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

_WHOLE = {"connections", "sessions", "requests", "jobs", "count"}
# What a log line begins with before it says something: placeholders, methods, paths, numbers.
_PREAMBLE = re.compile(r"^(?:(?:GET|PUT|POST|PATCH|DELETE|HEAD|[…/\d]\S*|\[[^\]]*\])\s+)+")


def choose(seed: str, *options: str) -> str:
    """One of the options: always the same one for the same seed, different ones for different seeds."""
    return options[int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16) % len(options)]


def amount(value: float | None, unit: str) -> str:
    """A value as people read it: 34 %, 190 ms, 12 GB, 1,834."""
    if value is None:
        return "no value"
    if unit == "ratio":
        return f"{value * 100:.2g} %" if abs(value) < 0.1 else f"{value * 100:.0f} %"
    if unit in {"s", "seconds"}:
        return _seconds(value)
    if unit in _WHOLE:
        return f"{value:,.0f}"
    if unit == "bytes":
        return next((f"{value / size:.1f} {name}" for size, name in _BYTE_STEPS if abs(value) >= size), "0 B")
    return plain(value)


def plain(value: float) -> str:
    """A number without a unit, with at most three digits after the point."""
    if value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _seconds(value: float) -> str:
    if abs(value) < 1:
        return f"{value * 1000:.0f} ms"
    for size, name in _SECOND_STEPS:
        if abs(value) >= 2 * size:
            return f"{value / size:.0f} {name}"
    return f"{value:.3g} s"


def clock(moment: datetime | None) -> str:
    """The time of day in UTC, e.g. 06:41."""
    return moment.astimezone(UTC).strftime("%H:%M") if moment else "an unknown time"


def moment(text: object) -> datetime | None:
    """A timestamp of a result; None for anything else."""
    try:
        if isinstance(text, int | float):
            return datetime.fromtimestamp(text, UTC)
        found = datetime.fromisoformat(str(text))
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def listed(items: Sequence[str], joint: str = "and") -> str:
    """a, b and c."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {joint} {items[-1]}"


def quoted(text: str, limit: int = 90) -> str:
    """Foreign text as one short quoted line."""
    line = re.sub(r"\s+", " ", re.sub(r"[\x00-\x1f]", " ", text)).strip().replace('"', "'")
    return f'"{line}"' if len(line) <= limit else f'"{line[: limit - 1]}…"'


def log_line(text: str, limit: int = 90) -> str:
    """A log pattern as a short quotation: placeholders as dots, the telling part first."""
    plain_text = re.sub(r"<[*\w]+>|\*", "…", text).strip()
    telling = _PREAMBLE.sub("", plain_text)
    return quoted("…" + telling if telling != plain_text else plain_text, limit)


def counted(number: int, thing: str) -> str:
    """1 error, 2 errors."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def paragraphs(*texts: str) -> str:
    """The texts that say something, with an empty line between them."""
    return "\n\n".join(filter(None, texts))


def sentence(text: str) -> str:
    """With a full stop, and a capital letter unless it begins with the name of a metric."""
    text = text.strip()
    if "_" not in text.split(" ", 1)[0]:
        text = text[:1].upper() + text[1:]
    return text + ("" if text.endswith((".", "!", "?")) else ".")
