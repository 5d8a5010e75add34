"""Something was committed: announce it, wait for it.

The row is the truth and a hint only says "look again", so a lost hint costs a delay and nothing else.
SQLite needs no announcement: `PRAGMA data_version` changes with every commit of another connection and
costs some ten microseconds to ask. It is asked often only while the files of the database are being
written to, which Linux tells by inotify. PostgreSQL carries the run id in NOTIFY, delivered with the commit.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection
from inotify_simple import INotify, flags

CHANNEL = "agentops_runs"
POLL_SECONDS = 0.02
WRITTEN_POLL_SECONDS = 0.004
# A commit becomes visible some time after its bytes were written: the disk is waited for in between.
WRITTEN_SECONDS = 0.1
UNTOLD_POLL_SECONDS = 0.5  # where files tell of writes: a net under it
SLOWEST_POLL_SECONDS = 0.04  # where nothing tells of writes, such as on network file systems
GATHER_SECONDS = 0.01
_QUEUED = "SELECT 1 FROM runs_run WHERE status = 'queued' AND (retry_at IS NULL OR retry_at <= ?) LIMIT 1"
_ABANDONED = "SELECT 1 FROM runs_run WHERE status = 'running' AND lease_until <= ? LIMIT 1"
_BUDGETS = "SELECT COALESCE(MAX(id), 0) FROM runs_budgetchange"
logger = logging.getLogger(__name__)

NO_RUN = 0  # stands for what belongs to no run: budgets
SAFETY_SECONDS = 5.0  # look again after this long even without a hint


def announce(run_id: int) -> None:
    """Tell every process that this run changes with the present transaction. Call it inside one."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, str(run_id)])


class Listener:
    """Waits for commits of others, in a thread of a worker. Not for sharing between threads."""

    def __init__(self) -> None:
        self._sqlite: _CommitCounter | None = None
        self._heard_at = 0.0
        self._postgres: psycopg.Connection[Any] | None = None
        if connection.vendor == "postgresql":
            self._postgres = psycopg.connect(**postgres_parameters(), autocommit=True)
            self._postgres.execute(f"LISTEN {CHANNEL}")
        else:
            self._sqlite = _CommitCounter()

    def wait(self, timeout: float) -> bool:
        """Return True as soon as something was committed, False after `timeout` seconds."""
        if self._postgres is not None:
            heard = False
            for _ in self._postgres.notifies(timeout=timeout, stop_after=1):
                heard = True
            return heard
        assert self._sqlite is not None
        until = time.monotonic() + timeout
        # In a stream of commits hints come no more often than pages look; after silence, much sooner.
        time.sleep(min(timeout, max(0.0, self._heard_at + POLL_SECONDS - time.monotonic())))
        while not self._sqlite.changed():
            if (left := until - time.monotonic()) <= 0:
                return False
            self._sqlite.rest(left)
        self._heard_at = time.monotonic()
        return True

    def is_any_queued(self, now: datetime) -> bool:
        """Whether a run waits for a driver now. SQLite only; costs some ten microseconds."""
        return self._finds(_QUEUED, now)

    def is_any_due(self, now: datetime) -> bool:
        """The same, or whether the lease of a run ran out."""
        return self._finds(_QUEUED, now) or self._finds(_ABANDONED, now)

    def _finds(self, query: str, now: datetime) -> bool:
        assert self._sqlite is not None
        found = self._sqlite.connection.execute(query, [str(now.replace(tzinfo=None))]).fetchone()
        return found is not None

    def close(self) -> None:
        """Give the connection back."""
        if self._postgres is not None:
            self._postgres.close()
        if self._sqlite is not None:
            self._sqlite.close()


async def changes() -> AsyncIterator[set[int]]:
    """Ids of runs that changed, also when only the draft of a streaming turn grew; NO_RUN for a budget.

    One watcher per event loop is enough: it holds a connection of its own.
    """
    watch = _postgres_changes() if connection.vendor == "postgresql" else _sqlite_changes()
    async for run_ids in watch:
        if run_ids:
            yield run_ids


async def _sqlite_changes() -> AsyncIterator[set[int]]:
    commits = _CommitCounter()
    try:
        recent = _Recent(commits.connection)
        while True:
            if commits.changed():
                yield recent.look()
                await asyncio.sleep(POLL_SECONDS)
            else:
                await commits.rest_async()
    finally:
        commits.close()


async def _postgres_changes() -> AsyncIterator[set[int]]:
    while True:
        try:
            listener = await psycopg.AsyncConnection.connect(**postgres_parameters(), autocommit=True)
            async with listener:
                await listener.execute(f"LISTEN {CHANNEL}")
                while True:
                    heard: set[int] = set()
                    async for notice in listener.notifies(timeout=SAFETY_SECONDS, stop_after=1):
                        heard.add(int(notice.payload))
                    # What is committed in one go, by one driver or several, is one look for all pages.
                    await asyncio.sleep(GATHER_SECONDS if heard else 0)
                    async for notice in listener.notifies(timeout=0):
                        heard.add(int(notice.payload))
                    yield heard
        except psycopg.OperationalError as error:
            # Opened again; pages look for themselves now and then, so that nothing is missed.
            logger.warning("pages are not live, the database does not answer: %s", error)
        await asyncio.sleep(1)


class _CommitCounter:
    """Notices commits by other connections to the SQLite file."""

    def __init__(self) -> None:
        path = connection.settings_dict["NAME"]
        self.connection = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=20
        )
        self._seen = self._version()
        self._writes = _Writes(Path(path).parent)

    def rest(self, most: float) -> None:
        """Wait until it is worth asking again, `most` seconds at the longest."""
        pause = min(self._writes.pause, most)
        if self._writes.tells:
            self._writes.read(pause)
        else:
            time.sleep(pause)

    async def rest_async(self) -> None:
        """The same for code on an event loop."""
        pause = self._writes.pause
        if self._writes.tells:
            await self._writes.readable(max(pause, POLL_SECONDS))
            self._writes.read(0)
        else:
            await asyncio.sleep(max(pause, POLL_SECONDS))

    def _version(self) -> int:
        version: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def changed(self) -> bool:
        version = self._version()
        changed = version != self._seen
        self._seen = version
        if changed:
            self._writes.seen()
        return changed

    def close(self) -> None:
        self._writes.close()
        self.connection.close()


class _Writes:
    """Tells when files of a folder are written to, where the system does; else, how long to pause."""

    def __init__(self, folder: Path) -> None:
        self._written_at = time.monotonic()
        self._inotify: INotify | None = None
        try:
            self._inotify = INotify()
            self._inotify.add_watch(folder, flags.MODIFY | flags.CREATE)
        except (OSError, AttributeError) as error:  # no Linux, or no more watches for this user
            logger.info("writes to the database are not told by the system, it is asked instead: %s", error)
            self.close()

    @property
    def tells(self) -> bool:
        """Whether it is worth waiting for the system now: not while something was just written."""
        return self._inotify is not None and self._quiet >= WRITTEN_SECONDS

    @property
    def pause(self) -> float:
        """Seconds until the database is to be asked again, if nothing is heard before."""
        if self._quiet < WRITTEN_SECONDS:
            return WRITTEN_POLL_SECONDS
        return SLOWEST_POLL_SECONDS if self._inotify is None else UNTOLD_POLL_SECONDS

    @property
    def _quiet(self) -> float:
        return time.monotonic() - self._written_at

    def seen(self) -> None:
        """Something was committed, so more may follow."""
        self._written_at = time.monotonic()

    def read(self, seconds: float) -> None:
        """Wait so long for a write, and take it in."""
        assert self._inotify is not None
        if self._inotify.read(timeout=int(seconds * 1000)):
            self.seen()

    async def readable(self, seconds: float) -> None:
        """Wait so long until there is a write to be read."""
        assert self._inotify is not None
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._inotify.fileno(), heard.set)
        try:
            await asyncio.wait_for(heard.wait(), seconds)
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self._inotify.fileno())

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        self._inotify = None


class _Recent:
    """Which runs changed since the last look: new events, and drafts that grew; and whether budgets did.

    Event ids are a safe cursor on SQLite because it has one writer: they commit in order.
    """

    def __init__(self, source: sqlite3.Connection) -> None:
        self._source = source
        self._last_event = self._scalar("SELECT COALESCE(MAX(id), 0) FROM runs_event")
        self._last_budget = self._scalar(_BUDGETS)
        self._drafts = self._read_drafts()

    def _scalar(self, query: str) -> int:
        value: int = self._source.execute(query).fetchone()[0]
        return value

    def _read_drafts(self) -> dict[int, tuple[int, int]]:
        rows = self._source.execute(
            "SELECT id, run_id, length(draft) FROM runs_step WHERE status = 'running'"
        )
        return {step: (run, length) for step, run, length in rows}

    def look(self) -> set[int]:
        rows = self._source.execute(
            "SELECT id, run_id FROM runs_event WHERE id > ? ORDER BY id", [self._last_event]
        ).fetchall()
        if rows:
            self._last_event = rows[-1][0]
        drafts = self._read_drafts()
        grown = {run for step, (run, length) in drafts.items() if self._drafts.get(step) != (run, length)}
        self._drafts = drafts
        last_budget = self._scalar(_BUDGETS)
        budgets = {NO_RUN} if last_budget != self._last_budget else set()
        self._last_budget = last_budget
        return {run for _, run in rows} | grown | budgets


def postgres_parameters() -> dict[str, Any]:
    """What Django connects with, without what only Django's own connections understand."""
    parameters = connection.get_connection_params()
    own = {"cursor_factory", "row_factory", "context", "prepare_threshold", "autocommit", "client_encoding"}
    return {name: value for name, value in parameters.items() if name not in own and value is not None}
