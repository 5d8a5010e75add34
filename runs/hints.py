"""Something was committed: announce it, wait for it.

The row is the truth and a hint only says "look again", so a lost hint costs a delay and nothing else.
SQLite needs no announcement: `PRAGMA data_version` changes with every commit of another connection and
costs some ten microseconds to ask. PostgreSQL carries the run id in NOTIFY, delivered with the commit.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import psycopg
from django.db import connection

CHANNEL = "agentops_runs"
POLL_SECONDS = 0.02
IDLE_POLL_SECONDS = 0.004
GATHER_SECONDS = 0.01
_QUEUED = "SELECT 1 FROM runs_run WHERE status = 'queued' AND (retry_at IS NULL OR retry_at <= ?) LIMIT 1"
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
            if time.monotonic() >= until:
                return False
            time.sleep(IDLE_POLL_SECONDS)
        self._heard_at = time.monotonic()
        return True

    def is_any_queued(self, now: datetime) -> bool:
        """Whether a run waits for a driver now. SQLite only; costs some ten microseconds."""
        assert self._sqlite is not None
        return (
            self._sqlite.connection.execute(_QUEUED, [str(now.replace(tzinfo=None))]).fetchone() is not None
        )

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

    def _version(self) -> int:
        version: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def changed(self) -> bool:
        version = self._version()
        changed = version != self._seen
        self._seen = version
        return changed

    def close(self) -> None:
        self.connection.close()


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
