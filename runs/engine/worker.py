"""A worker: claims runs, drives them in threads, keeps their leases alive, and sweeps deadlines."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
from django.conf import settings
from django.db import InterfaceError, OperationalError, connections
from django.utils import timezone

from runs import actions
from runs.actions import Lease
from runs.engine.drive import drive
from runs.engine.presence import Presence
from runs.engine.sender import Sender
from runs.hints import Listener

logger = logging.getLogger(__name__)

UNREACHABLE = (OperationalError, InterfaceError, psycopg.Error, sqlite3.Error)
SWEEP_SECONDS = 1.0  # deadlines and retries are looked for this often; hints wake at once


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
        except UNREACHABLE as error:
            logger.warning("heartbeat failed, trying again: %s", error)
            connections.close_all()


class Worker:
    """Drives queued runs with `concurrency` threads until it is stopped."""

    def __init__(self, *, concurrency: int = 4) -> None:
        self.name = worker_name()
        self._concurrency = concurrency
        self._stopping = threading.Event()
        self._busy: set[int] = set()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Claim nothing more; each thread finishes its current move and hands its run back."""
        self._stopping.set()

    def run(self) -> None:
        """Work until `stop`; returns when the last thread has left. An unreachable database is waited for."""
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="drive")
        try:
            with Heart(Presence(self.name, concurrency=self._concurrency)) as heart, Sender():
                while not self._stopping.is_set():
                    try:
                        self._work(pool, heart)
                    except UNREACHABLE as error:
                        logger.warning("the database does not answer, trying again: %s", error)
                        connections.close_all()
                        self._stopping.wait(SWEEP_SECONDS)
                pool.shutdown(wait=True)
        finally:
            connections.close_all()

    def _work(self, pool: ThreadPoolExecutor, heart: Heart) -> None:
        """Look, wait for a hint, look again; ends when told to stop or when the database is gone."""
        listener = Listener()
        try:
            while not self._stopping.is_set():
                self._look(pool, heart)
                listener.wait(SWEEP_SECONDS)
        finally:
            listener.close()

    def _look(self, pool: ThreadPoolExecutor, heart: Heart) -> None:
        """Expire what is overdue, then claim as many runs as there are free threads."""
        now = timezone.now()
        actions.expire_approvals(now)
        free = self._concurrency - len(self._busy)
        if free <= 0:
            return
        for run_id in actions.claimable(now, free):
            lease = actions.claim(run_id, self.name)
            if lease is not None:
                with self._lock:
                    self._busy.add(run_id)
                heart.hold(lease)
                pool.submit(self._drive, lease, heart)

    def _drive(self, lease: Lease, heart: Heart) -> None:
        try:
            drive(lease, self._stopping.is_set)
        finally:
            heart.release(lease)
            with self._lock:
                self._busy.discard(lease.run_id)
            connections.close_all()
