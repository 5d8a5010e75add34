"""On SQLite the run table is the queue: look for runs to drive when something was committed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.db import connections
from django.utils import timezone

from runs import actions
from runs.actions import Lease
from runs.hints import Listener

if TYPE_CHECKING:
    from runs.engine.worker import Worker

SWEEP_SECONDS = 1.0  # what only time makes due is looked for this often
AT_ONCE = 8  # runs claimed in one transaction; what waits is shared with other workers


class RunTable:
    """Claims runs from their table.

    Every turn of every run commits, also those of this worker. So a commit leads to one cheap look for a
    queued run, and to nothing while all threads are busy; leases and deadlines run out with time alone.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._claiming = threading.Lock()  # else all threads would go for the same run, the oldest

    def serve(self) -> None:
        """Begin runs until the worker is stopping; see Source."""
        listener = Listener()
        try:
            while not self._worker.stopping.is_set():
                actions.expire_approvals(timezone.now())
                actions.resume_after_budgets(timezone.now())
                if listener.is_any_due(timezone.now()):  # a claim locks out all other writers
                    self._begin()
                self._until(listener, time.monotonic() + SWEEP_SECONDS)
        finally:
            listener.close()
            connections.close_all()

    def _until(self, listener: Listener, sweep: float) -> None:
        """Begin what is put into the queue, until the next sweep."""
        worker = self._worker
        while (left := sweep - time.monotonic()) > 0 and not worker.stopping.is_set():
            if not worker.free:
                with worker.changed:
                    worker.changed.wait_for(lambda: worker.free or worker.stopping.is_set(), left)
            elif listener.wait(left) and listener.is_any_queued(timezone.now()):
                self._begin()

    def _begin(self) -> None:
        while (free := min(self._worker.free, AT_ONCE)) and not self._worker.stopping.is_set():
            leases = self._claimed(free)
            for lease in leases:
                self._worker.begin(self._one_after_another(lease))
            if len(leases) < free:
                return

    def _one_after_another(self, lease: Lease) -> Iterator[Lease]:
        """This lease, then those of runs that still wait: their thread keeps its connection meanwhile."""
        leases = [lease]
        while leases:
            yield leases[0]
            leases = self._claimed(1)

    def _claimed(self, limit: int) -> list[Lease]:
        with self._claiming:
            if self._worker.stopping.is_set():
                return []
            return actions.claim_oldest(self._worker.name, limit)
