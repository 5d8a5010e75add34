"""Times as the model writes them. A time that cannot be read is refused, never guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, NotRequired, TypedDict

from pydantic import ConfigDict, Field, with_config

from tools.base import ToolError

_RELATIVE = re.compile(r"now(?:-(\d{1,6})(s|m|h|d|w))?")
_ABSOLUTE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:?\d\d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
FORMATS = "RFC 3339 UTC, e.g. 2026-11-22T07:00:00Z, or relative to now: now-15m, now-2h, now-1d"


@with_config(ConfigDict(extra="forbid"))
class TimeRange(TypedDict):
    """From when to when."""

    start: Annotated[str, Field(description=FORMATS)]
    end: NotRequired[Annotated[str, Field(description=f"{FORMATS}. Omit for now.")]]


@dataclass(frozen=True)
class Resolved:
    """A range in seconds since 1970 UTC, and what had to be changed to get it."""

    start: float
    end: float
    warnings: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def echo(self) -> list[str]:
        """The absolute range, as it is reported back."""
        return [iso(self.start), iso(self.end)]


def iso(at: float) -> str:
    """RFC 3339 UTC to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str, now: float, name: str) -> float:
    """Seconds since 1970 UTC. Raises ToolError(invalid_argument) that names the argument and the formats."""
    written = text.strip()
    at = _read(written, now)
    if at is not None and at >= 0:
        return at
    shown = written[:40]
    raise ToolError(
        "invalid_argument",
        f'{name} is "{shown}", which is not a time after 1970. Use {FORMATS}. Now is {iso(now)}.',
    )


def _read(written: str, now: float) -> float | None:
    relative = _RELATIVE.fullmatch(written.lower())
    if relative:
        return now - int(relative[1] or 0) * _SECONDS[relative[2] or "s"]
    if not _ABSOLUTE.fullmatch(written):
        return None
    try:
        return datetime.fromisoformat(written.upper()).timestamp()
    except (ValueError, OverflowError):
        return None


def resolve(time_range: TimeRange | None, now: float, default_seconds: float) -> Resolved:
    """The absolute range; without one, the last `default_seconds`. An end in the future becomes now."""
    if time_range is None:
        return Resolved(now - default_seconds, now)
    start = parse(time_range["start"], now, "time_range.start")
    end = parse(time_range["end"], now, "time_range.end") if time_range.get("end") else now
    warnings: tuple[str, ...] = ()
    if start > now:
        raise ToolError(
            "invalid_argument",
            f"time_range.start is {iso(start)}, in the future. Now is {iso(now)}; use an earlier start.",
        )
    if end > now:
        warnings = (f"time_range.end was in the future; now, {iso(now)}, was used.",)
        end = now
    if start >= end:
        raise ToolError(
            "invalid_argument",
            f"time_range.start ({iso(start)}) must be before time_range.end ({iso(end)}). Swap them.",
        )
    return Resolved(start, end, warnings)


def duration(seconds: float) -> str:
    """A length of time in words a person reads at a glance: "38 min", "2 h", "45 s"."""
    if seconds < 10:
        return f"{seconds:.3g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.3g} h"
    return f"{seconds / 86400:.3g} d"
