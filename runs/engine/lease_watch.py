"""Whether leases still hold, asked for all streaming turns of a process at once.

A driver that waits for the model looks four times a second whether its run was cancelled or taken over.
With two hundred runs that would be eight hundred queries a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from django.db import InterfaceError, OperationalError

from runs import actions, pool
from runs.actions import Lease

FRESH_SECONDS = 0.2
logger = logging.getLogger(__name__)


class LeaseWatch:
    """Remembers for a moment which leases hold; whoever asks next renews the answer for everybody.

    While the database does not answer, what was known holds: a turn or a tool is not given up for that.
    """

    def __init__(self, still_held: Callable[[Collection[Lease]], set[Lease]] = actions.still_held) -> None:
        self._still_held = pool.giving_back(still_held)
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
            is_old = time.monotonic() - self._asked_at >= FRESH_SECONDS
            if is_old:  # this thread asks, and the others go by what is known meanwhile
                self._asked_at = time.monotonic()
                watched = set(self._watched)
        if is_old:
            self._ask(watched)
        with self._lock:
            return lease in self._lost

    def _ask(self, watched: set[Lease]) -> None:
        try:
            lost = watched - self._still_held(watched)
        except (OperationalError, InterfaceError) as error:
            logger.warning("whether leases still hold cannot be seen now: %s", error)
            return
        with self._lock:
            self._lost = {lease for lease in lost if lease in self._watched}


watch = LeaseWatch()
