"""Hours as numbers since 1970 in UTC, and back. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

HOUR = timedelta(hours=1)
DAY = 24
_EPOCH = datetime.fromtimestamp(0, UTC)


def hour_of(at: datetime) -> int:
    """The hour that this moment is in."""
    return (at - _EPOCH) // HOUR


def end_of(at: datetime) -> int:
    """The first hour that begins at this moment or later."""
    return -((_EPOCH - at) // HOUR)


def start_of(hour: int) -> datetime:
    """When this hour begins."""
    return _EPOCH + hour * HOUR
