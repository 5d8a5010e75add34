"""A worker: drives runs in threads, keeps their leases alive. Where it finds them depends on the database."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import psycopg
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, connections
from django.utils.module_loading import import_string

from runs import actions, pool
from runs.actions import Lease
from runs.engine.bookkeeper import Bookkeeper
from runs.engine.cost_keeper import CostKeeper
from runs.engine.drive import drive
from runs.engine.librarian import Librarian
from runs.engine.presence import Presence
from runs.engine.rechecking import Rechecker
from runs.engine.repricer import Repricer
from runs.engine.sender import Sender

logger = logging.getLogger(__name__)

UNREACHABLE = (OperationalError, InterfaceError, psycopg.Error, sqlite3.Error)
RETRY_SECONDS = 1.0  # between two attempts to reach the database
# By name, because only one of them can be loaded: the other one's packages are not set up.
SOURCES = {
    "sqlite": "runs.engine.run_table.RunTable",
    "postgresql": "runs.engine.job_queue.JobQueue",
}


def worker_name() -> str:
    """A name that no other process has had."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


class Heart:
    """Extends the leases of this process in a thread of its own, while it is open, and shows its presence."""

    def __init__(self, presence: Presence | None = None) -> None:
        self._presence = presence
        self._leases: dict[int, Lease] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def hold(self, lease: Lease) -> None:
        """Keep this lease alive until it is released."""
        with self._lock:
            self._leases[lease.run_id] = lease

    def release(self, lease: Lease) -> None:
        """Let it go, unless this process holds the run by a newer lease."""
        with self._lock:
            if self._leases.get(lease.run_id) == lease:
                del self._leases[lease.run_id]

    def _beat(self) -> None:
        over = False
        while not over:
            self._beat_once()
            over = self._stop.wait(settings.AGENTOPS_LEASE_SECONDS / 4)
        if self._presence is not None:
            self._presence.leave()
        connections.close_all()

    def _beat_once(self) -> None:
        with self._lock:
            leases = list(self._leases.values())
        try:
            if leases:
                actions.heartbeat(leases)
            if self._presence is not None:
                self._presence.show(len(leases))
            pool.give_back()
        except Exception as error:  # whatever it is: with this thread all leases of the process would end
            logger.warning("heartbeat failed, trying again: %s", error)
            connections.close_all()


class Source(Protocol):
    """Where a worker finds runs that it may drive."""

    def serve(self) -> None:
        """Begin runs with the worker's free threads until it is stopping; sweep what is overdue.

        Ends early, or raises one of UNREACHABLE, when the database does not answer.
        """


class Worker:
    """Drives queued runs with `concurrency` threads until it is stopped."""

    def __init__(self, *, concurrency: int = 4) -> None:
        self.name = worker_name()
        self.concurrency = concurrency
        self.stopping = threading.Event()
        self.changed = threading.Condition()  # a thread became free, or the worker is stopping
        self._busy = 0
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="drive")
        self._heart = Heart(Presence(self.name, concurrency=concurrency))

    @property
    def free(self) -> int:
        """How many threads have nothing to do."""
        return self.concurrency - self._busy

    def stop(self) -> None:
        """Claim nothing more; each thread finishes its current move and hands its run back."""
        self.stopping.set()
        with self.changed:
            self.changed.notify_all()

    def run(self) -> None:
        """Work until `stop`; returns when the last thread has left. An unreachable database is waited for."""
        source: Source = import_string(SOURCES[connection.vendor])(self)
        try:
            with (
                self._heart,
                Sender(),
                Rechecker(self.name),
                Librarian(),
                Repricer(),
                CostKeeper(),
                Bookkeeper(),
            ):
                try:
                    self._serve(source)
                finally:  # also after an error of ours: whoever drives needs the heart until it has left
                    self.stop()
                    self._threads.shutdown(wait=True)
        finally:
            connections.close_all()

    def _serve(self, source: Source) -> None:
        while not self.stopping.is_set():
            try:
                source.serve()
            except UNREACHABLE as error:
                logger.warning("the database does not answer, trying again: %s", error)
                connections.close_all()
                self.stopping.wait(RETRY_SECONDS)

    def begin(self, leases: Iterable[Lease]) -> Future[None]:
        """Drive these runs one after another in a thread of its own; there must be a free one.

        The next lease is taken from the iterable, in that thread, when the run before it is left.
        """
        with self.changed:
            self._busy += 1
        done = self._threads.submit(self._work, leases)
        done.add_done_callback(self._became_free)
        return done

    def _became_free(self, _: Future[None]) -> None:
        with self.changed:
            self._busy -= 1
            self.changed.notify_all()

    def _work(self, leases: Iterable[Lease]) -> None:
        try:
            for lease in leases:
                self._heart.hold(lease)
                try:
                    drive(lease, self.stopping.is_set)
                finally:
                    self._heart.release(lease)
        except UNREACHABLE as error:
            logger.warning("no run could be claimed, the database does not answer: %s", error)
        except Exception:
            logger.exception("no run could be claimed")
        finally:
            connections.close_all()
