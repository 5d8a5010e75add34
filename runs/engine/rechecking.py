"""Looks again at changes that had worked: a thread beside the heart of each worker."""

from __future__ import annotations

import json
import logging
import threading

from django.conf import settings
from django.db import connections
from django.utils import timezone

from runs import actions, pool
from runs.engine import calls, reconciling
from runs.models import RecheckState
from tools import boundary, registry

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
AT_ONCE = 10  # looks between two questions whether the worker is stopping
STATES = {
    "holds": RecheckState.HOLDS,
    "relapsed": RecheckState.RELAPSED,
    "cannot_tell": RecheckState.UNCLEAR,
}


class Rechecker:
    """Makes the looks that are due, one after another, while it is open."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="recheck", daemon=True)

    def __enter__(self) -> Rechecker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._stop.is_set():
            try:
                for pk in actions.due_rechecks(timezone.now(), AT_ONCE):
                    if self._stop.is_set():
                        break
                    look(pk, self._worker)
            except Exception as error:  # whatever it is, the next look may go well
                logger.warning("changes could not be looked at again, trying later: %s", error)
                connections.close_all()
            pool.give_back()
            self._stop.wait(LOOK_SECONDS)
        connections.close_all()


def look(pk: int, worker: str) -> bool:
    """Claim this look, make it, record what was seen; False when there was nothing to do.

    No transaction is open while the tool looks. A worker that dies here is followed by another.
    """
    recheck = actions.claim_recheck(pk, lease_seconds=_lease(pk))
    if recheck is None:
        return False
    step = recheck.step
    step.run = recheck.run
    tool = registry.find(step.name)
    if tool is None or tool.recheck is None:
        state, observed = RecheckState.DROPPED, "The tool cannot look again any more."
    else:
        arguments = json.loads(reconciling.arguments_of(step))
        context = calls.context(recheck.run, step)
        pool.give_back()
        seen = boundary.recheck(tool, arguments, context)
        state, observed = STATES[seen.said], seen.sentence
    actions.record_recheck(recheck, state, observed, worker=worker)
    return True


def _lease(pk: int) -> float:
    """How long a look may take before another worker makes it."""
    longest = max((tool.deadline_seconds for tool in registry.TOOLS.values()), default=60.0)
    return longest + float(settings.AGENTOPS_LEASE_SECONDS)
