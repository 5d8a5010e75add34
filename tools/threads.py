"""Threads that are used again: to start one and connect it to the database costs more than most calls.

They are daemons, so that a job that hangs does not hold the process; its thread is simply not free meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from django.db import connections

LOOK_SECONDS = 0.5  # so long something is waited for before asking whether it is still wanted
IDLE_SECONDS = 10.0  # after so long without a job a thread ends and closes its connections


class Job:
    """A piece of work that was given to a thread."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._running = threading.Lock()  # held until it is over; an Event costs several times as much
        self._running.acquire()

    @property
    def is_running(self) -> bool:
        """Whether its thread has not come back from it."""
        return self._running.locked()

    def wait(self, seconds: float, is_wanted: Callable[[], bool]) -> bool:
        """Return when it is over, after so many seconds, or when nobody wants it: false then.

        `is_wanted` is asked twice a second.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._running.acquire(timeout=min(left, LOOK_SECONDS)):
                self._running.release()
                return True
            if not is_wanted():
                return False
        return True

    def do(self) -> None:
        """Do it, on this thread. The work must not raise."""
        try:
            self._work()
        finally:
            self._running.release()


class _Thread(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="tool", daemon=True)
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.is_wanted = True

    def run(self) -> None:
        try:
            while (job := self._next()) is not None:
                job.do()
                _let_go_of_connections()
                with _lock:
                    if not self.is_wanted:
                        return
                    _idle.append(self)
        finally:
            connections.close_all()
            with _lock:
                _all.discard(self)

    def _next(self) -> Job | None:
        """The next job; None when there has been none for a while."""
        try:
            return self.jobs.get(timeout=IDLE_SECONDS)
        except Empty:
            with _lock:
                if self in _idle:
                    _idle.remove(self)
                    return None
            return self.jobs.get()  # it was given one at this very moment


_lock = threading.Lock()
_all: set[_Thread] = set()
_idle: list[_Thread] = []


def start(work: Callable[[], None]) -> Job:
    """Do this on a thread that is free, or on a new one; returns at once. The work must not raise."""
    job = Job(work)
    with _lock:
        thread = _idle.pop() if _idle else None
    if thread is None:
        thread = _Thread()
        thread.start()
        with _lock:
            _all.add(thread)
    thread.jobs.put(job)
    return job


def end(seconds: float) -> None:
    """End the threads as soon as they are free and close their connections; wait so long for each."""
    with _lock:
        ending = list(_all)
        for thread in ending:
            thread.is_wanted = False
        for thread in _idle:
            thread.jobs.put(None)
        _idle.clear()
    for thread in ending:
        thread.join(seconds)


def _let_go_of_connections() -> None:
    """Keep SQLite's for the next job; a server's goes back to its pool, and so does a broken one."""
    for connection in connections.all(initialized_only=True):
        if connection.vendor != "sqlite" or connection.errors_occurred or connection.in_atomic_block:
            connection.close()


def _forget() -> None:
    """A forked process has the lists and none of the threads; the lock may have been held by one of them."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()
    _all.clear()


os.register_at_fork(after_in_child=_forget)
