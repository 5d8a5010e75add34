"""One change of a run: one transaction, its events in the hash chain, one hint on commit."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from runs import hints, jobs
from runs.actions.errors import LeaseLost
from runs.models import Event, Run, RunStatus, event_hash

# SQLite has one writer. Threads of one process queue here, where waiting is fair; SQLite's own busy
# handler lets some of them starve.
_writer = threading.Lock()


@dataclass(frozen=True)
class Lease:
    """The right to drive a run: whoever writes as its driver shows the fence."""

    run_id: int
    owner: str
    fence: int


class Change:
    """The run as it is locked now, what is to be saved of it, and the events of this transaction."""

    def __init__(self, run: Run, actor: str) -> None:
        self.run = run
        self.actor = actor
        self.now = timezone.now()
        self._fields: set[str] = set()
        self._events: list[Event] = []

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

    def event(self, kind: str, **data: Any) -> None:
        """Record that something happened; the data must be JSON."""
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
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
            Event(
                run=self.run,
                seq=seq,
                kind=kind,
                actor=self.actor,
                data=text,
                at=self.now,
                previous_hash=self.run.last_event_hash,
                hash=digest,
            )
        )
        self.set(last_event=seq, last_event_hash=digest)

    def save(self) -> None:
        """Write events and run; called once, by `change`."""
        Event.objects.bulk_create(self._events)
        if self._fields:
            self.run.save(update_fields=sorted(self._fields))
        if self.run.status == RunStatus.QUEUED:
            jobs.defer(self.run.pk, self.run.retry_at)
        hints.announce(self.run.pk)


@contextmanager
def change(run_id: int, *, actor: str, lease: Lease | None = None) -> Iterator[Change]:
    """Lock the run, let the caller change it, commit everything together.

    With a lease, raises LeaseLost when somebody else drives the run by now.
    """
    with one_writer(), transaction.atomic():
        run = Run.objects.select_for_update().get(pk=run_id)
        if lease is not None and (run.fence != lease.fence or run.lease_owner != lease.owner):
            raise LeaseLost(f"Run {run.request_id} is driven by {run.lease_owner or 'nobody'} now.")
        current = Change(run, actor)
        yield current
        current.save()


def one_writer() -> AbstractContextManager[Any]:
    """On SQLite, the turn of this thread among the writers of this process."""
    return _writer if connection.vendor == "sqlite" else nullcontext()


def stop_clock(current: Change, until: datetime | None = None) -> None:
    """Nobody drives the run any more, or since `until`: the driven time no longer grows."""
    since: datetime | None = current.run.driving_since
    if since is not None:
        driven = ((until or current.now) - since).total_seconds()
        current.add(driven_seconds=max(0.0, driven))
        current.set(driving_since=None)


def end_waiting(current: Change) -> None:
    """A person decided or the deadline did: the time waited no longer grows."""
    since: datetime | None = current.run.waiting_since
    if since is not None:
        current.add(waited_seconds=(current.now - since).total_seconds())
        current.set(waiting_since=None)
