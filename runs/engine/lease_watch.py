"""Whether leases still hold, asked for all streaming turns of a process at once.

A driver that waits for the model looks four times a second whether its run was cancelled or taken over.
With two hundred runs that would be eight hundred queries a second.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runs import actions, pool
from runs.actions import Lease

FRESH_SECONDS = 0.2


class LeaseWatch:
    """Remembers for a moment which leases hold; whoever asks next renews the answer for everybody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: Counter[Lease] = Counter()  # a turn of several calls asks for each
        self._lost: set[Lease] = set()
        self._asked_at = 0.0

    @contextmanager
    def over(self, lease: Lease) -> Iterator[Callable[[], bool]]:
        """A question that is true as soon as the lease is lost, for the length of the block."""
        with self._lock:
            self._watched[lease] += 1
        try:
            yield lambda: self._is_lost(lease)
        finally:
            with self._lock:
                self._watched[lease] -= 1
                if not self._watched[lease]:
                    del self._watched[lease]
                    self._lost.discard(lease)

    def _is_lost(self, lease: Lease) -> bool:
        with self._lock:
            if time.monotonic() - self._asked_at >= FRESH_SECONDS:
                watched = set(self._watched)
                self._lost = watched - pool.giving_back(actions.still_held)(watched)
                self._asked_at = time.monotonic()
            return lease in self._lost


watch = LeaseWatch()
