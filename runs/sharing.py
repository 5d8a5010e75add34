"""What many open pages of this process read at the same moment is read once, until the next hint.

A value that was read before a hint is not given to anybody after it, so a page never shows less than what
the hint was about; and none is kept for longer than a page may go without looking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any, cast

KEPT_SECONDS = 1.0


class Shared:
    """Values by their key. `get` makes one that is missing; `forget` is for whoever hears a hint."""

    def __init__(self) -> None:
        self._hints = 0
        self._kept: dict[Hashable, tuple[float, Any]] = {}

    def forget(self) -> None:
        """Everything may be different from now on, also what is being read at this moment."""
        self._hints += 1
        self._kept = {}

    def get[T](self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of this key, made once for all who ask until the next hint.

        The key has to name all that the value depends on but the database and the clock, the viewer too.
        """
        now = time.monotonic()
        found = self._kept.get(key)
        if found is not None and now - found[0] < KEPT_SECONDS:
            return cast(T, found[1])
        hints = self._hints
        value = make()
        if hints == self._hints:
            self._kept[key] = (now, value)
        return value


shared = Shared()
