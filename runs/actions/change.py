"""One change of a run: one transaction, its events in the hash chain, one hint on commit."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from runs import hints, jobs
from runs.actions import cost_hours, group_commit, rows
from runs.actions.errors import LeaseLost
from runs.models import Event, Run, RunStatus, Step, event_hash
from runs.models.in_force import HEAD, IN_FORCE_SQL
from runs.models.sql import execute
from tools.policy import Policy

# After these a run has got on: a worker that dies next begins a new count of takeovers.
PROGRESS = frozenset(
    {"model.finished", "call.finished", "call.refused", "call.unknown", "approval.asked", "note.added"}
)

HELD_MILLISECONDS = 200  # so long those who act for many runs wait for a row that somebody holds
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass
class Memory:
    """What a driver knows of its run without asking: the rows as its own last change left them.

    They are believed only while the hash of the last event is still theirs: whoever else writes to a run or
    its steps appends an event. `open` is the change that is under way.
    """

    run: Run | None = None
    steps: list[Step] | None = None
    open: Change | None = None
    unsure: str = ""  # hash of the last event of a change whose commit may or may not have been done


@dataclass(frozen=True)
class Lease:
    """The right to drive a run: whoever writes as its driver shows the fence. For one thread at a time."""

    run_id: int
    owner: str
    fence: int
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)


class Change:
    """The run as it is locked now, what is to be saved of it, and the events of this transaction."""

    def __init__(self, run: Run, actor: str, now: datetime, memory: Memory | None = None) -> None:
        self.run = run
        self.actor = actor
        self.now = now  # by the clock of the database, as soon as the run was locked
        self.has_budgets: bool | None = None  # as the ledger has seen it in this transaction
        self.counts_again = False  # what sums over the ledger say of the hours of this run no longer holds
        self.rules: Policy | None = None  # in force, as this transaction last read them
        self.rules_known: str | None = None  # which these are, where that was read with the run
        self._memory = memory or Memory()
        self._fields: set[str] = set()
        self._later: dict[Step, set[str]] = {}
        self._events: list[dict[str, Any]] = []

    def set(self, **values: Any) -> None:
        """Set columns of the run; they are saved at the end of the transaction."""
        for name, value in values.items():
            setattr(self.run, name, value)
        self._fields |= values.keys()

    def add(self, **amounts: Any) -> None:
        """Increase columns of the run."""
        self.set(**{name: getattr(self.run, name) + amount for name, amount in amounts.items()})

    def next_seq(self) -> int:
        """The number of a new step."""
        self.add(step_count=1)
        return self.run.step_count

    def step(self, seq: int) -> Step:
        """A step of the run, locked with it."""
        if self._memory.steps is not None:
            return self._memory.steps[seq - 1]
        step = Step.objects.select_for_update().get(run=self.run, seq=seq)
        step.run = self.run
        return step

    def steps_before(self, step: Step) -> Iterator[Step]:
        """The earlier steps, newest first; only `seq`, `kind`, `status` and `name` of them are for sure."""
        steps = self._memory.steps
        if steps is not None:
            yield from (steps[index] for index in range(step.seq - 2, -1, -1))
        else:
            earlier = Step.objects.filter(run=self.run, seq__lt=step.seq).order_by("-seq")
            yield from earlier.only("seq", "kind", "status", "name").iterator(chunk_size=20)

    def has_no_open_step(self) -> bool:
        """Whether the driver knows, without asking, that every step has ended."""
        steps = self._memory.steps
        return steps is not None and all(step.ended_at is not None for step in steps)

    def insert(self, step: Step) -> Step:
        """Store a new step."""
        rows.insert(step)
        if self._memory.steps is not None:
            self._memory.steps.append(step)
        return step

    def update(self, step: Step, names: Collection[str]) -> None:
        """Store these columns of a step that came from `step` or `insert`, and those that could wait."""
        rows.update(step, {*names, *self._later.pop(step, ())})

    def update_later(self, step: Step, *names: str) -> None:
        """The same, but only with the next update of this step, or at the end of the transaction.

        For columns that no statement in between looks at.
        """
        self._later.setdefault(step, set()).update(names)

    def event(self, kind: str, **data: Any) -> None:
        """Record that something happened; the data must be JSON."""
        text = _CANONICAL.encode(data)
        seq = self.run.last_event + 1
        digest = event_hash(
            previous_hash=self.run.last_event_hash,
            request_id=str(self.run.request_id),
            seq=seq,
            kind=kind,
            actor=self.actor,
            data=text,
            at=self.now,
        )
        self._events.append(
            {
                "run_id": self.run.pk,
                "seq": seq,
                "kind": kind,
                "actor": self.actor,
                "data": text,
                "at": self.now,
                "previous_hash": self.run.last_event_hash,
                "hash": digest,
            }
        )
        self.set(last_event=seq, last_event_hash=digest)
        if kind in PROGRESS and self.run.takeovers:
            self.set(takeovers=0)

    @property
    def unsaved_events(self) -> list[Event]:
        """What this change has recorded so far and not written yet, oldest first."""
        return [Event(**values) for values in self._events]

    def save(self) -> None:
        """Write what was to be written later, events and run; called once, by whoever opened the change."""
        for step in list(self._later):
            self.update(step, ())
        rows.append(Event, self._events)
        if self._fields:
            rows.update(self.run, self._fields)
        # Seals are the last lock: here all ledgers of budgets are written.
        if self.counts_again or ("ended_at" in self._fields and not cost_hours.is_young(self.run, self.now)):
            cost_hours.count_again([self.run.pk])
        if self.run.status == RunStatus.QUEUED:
            jobs.defer(self.run.pk, self.run.retry_at)
        hints.announce(self.run.pk)


@contextmanager
def change(
    run_id: int, *, actor: str, lease: Lease | None = None, remembers: bool = False
) -> Iterator[Change]:
    """Lock the run, let the caller change it, commit everything together.

    With a lease, raises LeaseLost when somebody else drives the run by now. Within `together` it is part of
    that change. A caller that writes steps with nothing but `Change.insert` and `Change.update` says that it
    `remembers`: the driver then knows its rows without reading them again.
    """
    if lease is None:
        with one_writer(), transaction.atomic():
            run = Run.objects.select_for_update().get(pk=run_id)
            current = Change(run, actor, database_now())
            yield current
            current.save()
    elif lease.memory.open is not None:
        yield lease.memory.open
        if not remembers:
            lease.memory.steps = None
    else:
        with together(lease) as current:
            yield current
            if not remembers:
                lease.memory.steps = None


@contextmanager
def together(lease: Lease) -> Iterator[Change]:
    """One change for everything that the driver records within: one transaction, committed at the end.

    Raises LeaseLost when somebody else drives the run. Do nothing in it that waits.
    """
    memory = lease.memory
    try:
        with shared_transaction():
            memory.open = _as_it_is(lease)
            yield memory.open
            memory.open.save()
            memory.unsure = memory.open.run.last_event_hash
        memory.unsure = ""
    except BaseException:
        memory.run = memory.steps = None  # what of it was committed has to be read
        raise
    finally:
        memory.open = None


def was_committed(lease: Lease) -> bool:
    """Whether the last change of this driver is there, although its commit ended with an error."""
    hash_ = lease.memory.unsure
    found = bool(hash_) and Event.objects.filter(run=lease.run_id, hash=hash_).exists()
    lease.memory.unsure = ""  # not before the database has answered
    return found


def driven(lease: Lease) -> tuple[Run, list[Step]]:
    """Within `together`: the run and its steps in order, as they are in this transaction."""
    memory = lease.memory
    assert memory.run is not None and memory.open is not None
    if memory.steps is None and not memory.run.step_count:
        memory.steps = []
    if memory.steps is None:
        memory.steps = list(Step.objects.filter(run=memory.run).order_by("seq").defer("draft"))
        for step in memory.steps:
            step.run = memory.run
    return memory.run, memory.steps


def database_now() -> datetime:
    """The present time by the one clock that all processes share; on SQLite they share a machine."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now.astimezone(UTC)


_LOOK = "SELECT last_event_hash, fence, lease_owner, clock_timestamp() FROM runs_run WHERE id = %s FOR UPDATE"
# SQLite has one writer: what it answers holds until the transaction ends. On PostgreSQL budgets and rules are
# asked for where their locks are taken.
_SEEN = "SELECT last_event_hash, fence, lease_owner, EXISTS (SELECT 1 FROM runs_budget),"
_LOOK_AT_ALL = " ".join((_SEEN, IN_FORCE_SQL, "FROM runs_run WHERE id = %s"))


def _as_it_is(lease: Lease) -> Change:
    """A change of the locked run as it is now: the remembered row when nobody wrote since, else read anew."""
    memory = lease.memory
    if (run := memory.run) is not None:
        server = connection.vendor == "postgresql"
        look, values = (_LOOK, [lease.run_id]) if server else (_LOOK_AT_ALL, [HEAD, lease.run_id])
        row = execute(look, values).fetchone()
        if row is not None and row[:3] == (run.last_event_hash, lease.fence, lease.owner):
            if server:
                return Change(run, lease.owner, row[3].astimezone(UTC), memory)
            current = Change(run, lease.owner, timezone.now(), memory)
            current.has_budgets, current.rules_known = bool(row[3]), row[4]
            return current
    memory.steps = None
    memory.run = run = Run.objects.select_for_update().get(pk=lease.run_id)
    if run.fence != lease.fence or run.lease_owner != lease.owner:
        raise LeaseLost(f"Run {run.request_id} is driven by {run.lease_owner or 'nobody'} now.")
    return Change(run, lease.owner, database_now(), memory)


def one_writer() -> AbstractContextManager[Any]:
    """On SQLite, the turn of this thread among the writers of this process."""
    return group_commit.alone() if connection.vendor == "sqlite" else nullcontext()


def shared_transaction() -> AbstractContextManager[None]:
    """A transaction of a driver, committed when the block is left without an error.

    On SQLite, drivers of one process that write at the same time share it, and its commit.
    """
    return group_commit.sharing() if connection.vendor == "sqlite" else transaction.atomic()


def wait_only(milliseconds: int) -> None:
    """In this transaction, for a lock. SQLite has none for rows."""
    if connection.vendor == "postgresql":
        execute("SELECT set_config('lock_timeout', %s, true)", [str(milliseconds)])
