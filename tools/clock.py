"""Time and chance as the boundary sees them, in one place so that tests can bring their own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def _utc() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Clock:
    """`seconds` only ever grows, `sleep` lets that many pass, `utc` is for people, `chance` is in [0, 1)."""

    seconds: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    utc: Callable[[], datetime] = _utc
    chance: Callable[[], float] = random.random
