"""Who works: worker processes, what they drive, how their backends are, and what waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q

from runs.models import Run, RunStatus, WorkerProcess, silent_since

SHOWN_GONE = timedelta(days=1)
MOST_GONE = 10
MOST_RUNS = 500
CIRCUITS = {"open": ("failed", "Left alone"), "half_open": ("waiting", "Tried again")}


@dataclass(frozen=True)
class WorkerView:
    """A worker and the runs whose lease it holds, oldest first."""

    process: WorkerProcess
    state: str  # working, idle, lost, stopped
    runs: tuple[Run, ...]

    @property
    def is_outdated(self) -> bool:
        return self.process.version != settings.VERSION


@dataclass(frozen=True)
class BackendView:
    """A backend as all living workers find it: the worst counts."""

    name: str
    status: str  # of the shape and colour
    word: str
    sentence: str
    hanging: int


@dataclass(frozen=True)
class Queue:
    """What a worker could take now."""

    waiting: int
    oldest: Run | None
    later: int  # runs that try again by themselves at a later time


@dataclass(frozen=True)
class WorkersView:
    """The page of workers."""

    alive: tuple[WorkerView, ...]
    gone: tuple[WorkerView, ...]  # lost or stopped within a day, the latest first, and not too many
    lost: int  # of these and those left out
    elsewhere: tuple[Run, ...]  # driven by no worker in the table: by a command in a terminal
    queue: Queue
    backends: tuple[BackendView, ...]

    @property
    def capacity(self) -> int:
        return sum(worker.process.concurrency for worker in self.alive)

    @property
    def driven(self) -> int:
        return sum(len(worker.runs) for worker in self.alive)

    @property
    def hanging(self) -> int:
        return sum(backend.hanging for backend in self.backends)


def read_workers(now: datetime) -> WorkersView:
    """All of it: six queries."""
    processes = list(WorkerProcess.objects.filter(Q(stopped_at=None) | Q(stopped_at__gt=now - SHOWN_GONE)))
    driven: dict[str, list[Run]] = {}
    for run in _driven(now):
        driven.setdefault(run.lease_owner, []).append(run)
    views = [_view(process, tuple(driven.pop(process.name, ())), now) for process in processes]
    alive = tuple(view for view in views if view.process.is_alive(now))
    gone = [
        view for view in views if not view.process.is_alive(now) and view.process.seen_at > now - SHOWN_GONE
    ]
    gone.sort(key=lambda view: view.process.seen_at, reverse=True)
    return WorkersView(
        alive=alive,
        gone=tuple(gone[:MOST_GONE]),
        lost=sum(view.state == "lost" for view in gone),
        elsewhere=tuple(run for runs in driven.values() for run in runs),
        queue=_queue(now),
        backends=_backends([view.process for view in alive]),
    )


def count_unattended(now: datetime) -> int:
    """How many runs wait for a worker although none is alive; 0 while one is."""
    alive = WorkerProcess.objects.filter(stopped_at=None, seen_at__gt=silent_since(now))
    return 0 if alive.exists() else _waiting(now).count()


def is_unattended(run: Run, now: datetime) -> bool:
    """Whether this run waits for a worker and none is alive. Asks only when the run could wait."""
    waits = run.status in {RunStatus.QUEUED, RunStatus.RUNNING} and not run.is_driven(now)
    if not waits or (run.retry_at is not None and run.retry_at > now):
        return False
    return not WorkerProcess.objects.filter(stopped_at=None, seen_at__gt=silent_since(now)).exists()


def as_data(view: WorkersView) -> dict[str, Any]:
    """The page for programs, ready for JSON: times in ISO 8601, runs by their request ids."""
    return {
        "workers": [_worker_data(worker) for worker in (*view.alive, *view.gone)],
        "queue": {
            "waiting": view.queue.waiting,
            "oldest": str(view.queue.oldest.request_id) if view.queue.oldest else None,
            "oldest_created_at": view.queue.oldest.created_at.isoformat() if view.queue.oldest else None,
            "later": view.queue.later,
        },
        "backends": [
            {
                "name": one.name,
                "state": one.word.lower(),
                "about": one.sentence,
                "abandoned_calls": one.hanging,
            }
            for one in view.backends
        ],
    }


def _worker_data(worker: WorkerView) -> dict[str, Any]:
    process = worker.process
    return {
        "name": process.name,
        "state": worker.state,
        "host": process.host,
        "pid": process.pid,
        "version": process.version,
        "concurrency": process.concurrency,
        "started_at": process.started_at.isoformat(),
        "seen_at": process.seen_at.isoformat(),
        "stopped_at": process.stopped_at.isoformat() if process.stopped_at else None,
        "runs": [str(run.request_id) for run in worker.runs],
        "health": process.health,
    }


def _view(process: WorkerProcess, runs: tuple[Run, ...], now: datetime) -> WorkerView:
    if process.stopped_at is not None:
        state = "stopped"
    elif process.is_lost(now):
        state = "lost"
    else:
        state = "working" if runs else "idle"
    return WorkerView(process, state, runs)


def _driven(now: datetime) -> Sequence[Run]:
    held = Run.objects.filter(status=RunStatus.RUNNING, lease_until__gt=now).order_by("created_at")
    return list(
        held.only("pk", "request_id", "user_query", "lease_owner", "started_at", "created_at")[:MOST_RUNS]
    )


def _waiting(now: datetime) -> Any:
    """Runs a worker could take now: new, due again, or left behind by one that is lost."""
    return Run.objects.filter(
        Q(lease_until__isnull=True) | Q(lease_until__lte=now),
        Q(retry_at__isnull=True) | Q(retry_at__lte=now),
        status__in=[RunStatus.QUEUED, RunStatus.RUNNING],
    )


def _queue(now: datetime) -> Queue:
    waiting = _waiting(now)
    return Queue(
        waiting=waiting.count(),
        oldest=waiting.only("pk", "request_id", "user_query", "created_at").order_by("created_at").first(),
        later=Run.objects.filter(status=RunStatus.QUEUED, retry_at__gt=now).count(),
    )


def _backends(processes: Sequence[WorkerProcess]) -> tuple[BackendView, ...]:
    """Each backend once, those in trouble first."""
    names = sorted({name for process in processes for name in process.health})
    views = [_backend(name, [p.health[name] for p in processes if name in p.health]) for name in names]
    return tuple(sorted(views, key=lambda view: (view.status == "succeeded", view.hanging == 0)))


def _backend(name: str, found: Sequence[dict[str, Any]]) -> BackendView:
    hanging = sum(int(one.get("hanging", 0)) for one in found)
    for state, (status, word) in CIRCUITS.items():
        affected = [one for one in found if one.get("state") == state]
        if affected:
            return BackendView(name, status, word, _trouble(state, affected, len(found)), hanging)
    failures = sum(int(one.get("failures", 0)) for one in found)
    lately = f"{failures} of its last calls failed." if failures else "Its last calls were answered."
    return BackendView(name, "succeeded", "Answers", lately, hanging)


def _trouble(state: str, affected: Sequence[dict[str, Any]], workers: int) -> str:
    where = "" if workers == 1 else f" by {len(affected)} of {workers} workers"
    since = min(str(one.get("opened_at", "")) for one in affected)[11:19]
    if state == "open":
        return f"It kept failing: left alone{where} since {since} UTC. Calls to it are refused at once."
    return f"It kept failing since {since} UTC. The next call{where} tries whether it is back."
