"""Run calls that have started, side by side where they read, and say how each is recorded."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

from django.db import connection, connections

from runs import actions, pool
from runs.actions import Lease
from runs.engine import reconciling
from runs.engine.acts import Record
from runs.engine.lease_watch import watch
from runs.engine.patience import UNREACHABLE
from runs.models import Step, StepStatus
from tools import boundary
from tools.base import Outcome, Tool, ToolContext

logger = logging.getLogger(__name__)

READ_THREADS = 8  # reads of one turn that are under way at once


@dataclass(frozen=True)
class Started:
    """A call whose START marker is committed: from here on only its outcome is missing."""

    step: Step
    tool: Tool
    arguments: str
    context: ToolContext


def run(lease: Lease, calls: list[Started]) -> Record:
    """Run these calls; this thread records what comes back, as soon as it does, and returns the last record.

    The threads are daemons and end with their calls, each of which ends by its tool's deadline, or within a
    second after the run was cancelled or taken over. Raises LeaseLost as soon as a row shows that.
    """
    if len(calls) == 1:
        return _record(lease, calls[0], _ask(lease, calls[0]))
    waiting: SimpleQueue[Started] = SimpleQueue()
    done: SimpleQueue[tuple[Started, Outcome | BaseException]] = SimpleQueue()
    given_up = threading.Event()
    for call in calls:
        waiting.put(call)
    for _ in range(min(READ_THREADS, len(calls))):
        threading.Thread(
            target=_work, args=(lease, waiting, done, given_up), name="call", daemon=True
        ).start()
    kept: list[tuple[Step, Record]] = []  # those that could not be stored yet
    try:
        for left in range(len(calls) - 1, -1, -1):
            call, outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            kept.append((call.step, _record(lease, call, outcome)))
            if left and _stored(lease, kept):
                kept = []
    finally:
        given_up.set()
    return kept[0][1] if len(kept) == 1 else _record_of_all(lease, kept)


def _stored(lease: Lease, kept: list[tuple[Step, Record]]) -> bool:
    """Store what came back; false when the database does not answer now. Then it is stored with the next."""
    try:
        if len(kept) == 1:
            kept[0][1].store()
        else:
            with actions.together(lease):
                _store_missing(lease, kept)
    except UNREACHABLE as error:
        logger.warning("results of run %s are kept, the database does not answer: %s", lease.run_id, error)
        lease.memory.unsure = ""  # whether it was stored all the same is seen by the rows
        connection.close()
        return False
    finally:
        pool.give_back()
    return True


def _record_of_all(lease: Lease, kept: list[tuple[Step, Record]]) -> Record:
    def when_lost() -> None:
        for _, record in kept:
            record.when_lost()

    return Record(partial(_store_missing, lease, kept), when_lost)


def _store_missing(lease: Lease, kept: list[tuple[Step, Record]]) -> None:
    """Within a transaction of the driver: store those of these that the rows do not have."""
    _, steps = actions.driven(lease)
    for step, record in kept:
        if steps[step.seq - 1].status == StepStatus.EXECUTING:
            record.store()


def _work(
    lease: Lease,
    waiting: SimpleQueue[Started],
    done: SimpleQueue[tuple[Started, Outcome | BaseException]],
    given_up: threading.Event,
) -> None:
    """Ask one waiting call after the other, until there is none or nobody wants to know."""
    try:
        while not given_up.is_set():
            call = waiting.get_nowait()
            try:
                done.put((call, _ask(lease, call)))
            except BaseException as error:  # whoever waits for this call must not wait for ever
                done.put((call, error))
    except Empty:
        return
    finally:
        connections.close_all()


def _ask(lease: Lease, call: Started) -> Outcome:
    with watch.over(lease) as is_lost:
        late = partial(reconciling.too_late, lease, call.step, call.step.attempt)
        caller = boundary.Caller(is_wanted=lambda: not is_lost(), too_late=late)
        return boundary.call(call.tool, json.loads(call.arguments), call.context, caller)


def _record(lease: Lease, call: Started, outcome: Outcome) -> Record:
    """How this outcome is stored. One that comes when somebody else drives the run is kept as evidence."""
    step, tool = call.step, call.tool
    late = partial(reconciling.too_late, lease, step, step.attempt, outcome)
    if outcome.may_have_acted and tool.idempotency == "reconcile":
        return Record(
            reconciling.after_failure(lease, step, tool, call.arguments, call.context, outcome), late
        )
    # An earlier attempt may have acted, too: an error now does not say that nothing happened. Not so where
    # a probe found that it had not.
    again = step.attempt > 1 and tool.idempotency != "reconcile"
    uncertain = outcome.may_have_acted or (again and outcome.is_error and tool.effect != "read")
    if uncertain and tool.idempotency == "key":
        # Asked again with the same key, it answers what happened instead of doing it twice.
        return Record(partial(actions.recover_call, lease, step.seq, repeatable=True), late)
    result = reconciling.result_of(outcome, tool, is_unknown=uncertain)
    return Record(partial(actions.finish_call, lease, step.seq, result), late)
