"""The turn of the threads of one process at SQLite's one writer, and commits that several of them share.

A commit waits for the disk, and while it does, nobody else can write. So a thread that has made its change
leaves the transaction open when others are waiting for their turn: they add theirs behind savepoints, and the
last one commits for all. Nobody is told that a change is stored before that commit has returned. What fails
takes back its own savepoint and nothing else; when the commit fails, everyone whose change it held gets the
error. All of it goes through one connection, so that hundreds of drivers need no connection each.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections, transaction

MOST_CHANGES = 16  # in one transaction
LONGEST_SECONDS = 0.03  # after so long nobody is let in any more: other processes want to write, too
ALONE_SECONDS = 5.0  # after a commit that failed, so that whose fault it was fails alone
GAP_SECONDS = 0.001  # between two full transactions: another process only gets in while nobody writes
LOOK_SECONDS = 1.0


class _Group:
    """A transaction on a connection that threads borrow for their turn."""

    def __init__(self, shared: Any) -> None:
        self.began = time.monotonic()
        self.connection = shared
        self.changes = 0
        self.error: BaseException | None = None
        self._over = threading.Event()
        self._transaction = transaction.atomic()
        with self.lent():
            self._transaction.__enter__()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within the block, what this thread asks of the database is part of the transaction."""
        own = connections[DEFAULT_DB_ALIAS]
        try:
            connections[DEFAULT_DB_ALIAS] = self.connection
            yield
        finally:
            connections[DEFAULT_DB_ALIAS] = own

    @property
    def is_broken(self) -> bool:
        """Whether SQLite has given up the whole transaction, as it does when the disk is full."""
        raw = self.connection.connection
        return self.connection.needs_rollback or raw is None or not raw.in_transaction

    @property
    def left_all_in_order(self) -> bool:
        """Whether the next transaction can have the connection."""
        raw = self.connection.connection
        is_over = not self.connection.in_atomic_block and raw is not None and not raw.in_transaction
        return is_over and not self.connection.errors_occurred

    def end(self, error: BaseException | None = None) -> None:
        """Commit, or with an error roll back; then everybody is told. Raises nothing but an interrupt."""
        try:
            if error is None and self.is_broken:
                error = OperationalError("SQLite has given up the transaction.")
            with self.lent():
                self._transaction.__exit__(type(error) if error else None, error, None)
        except BaseException as failed:
            error = error or failed
            if not isinstance(failed, Exception):
                raise
        finally:
            self.error = error
            self._over.set()

    def wait(self, seconds: float) -> bool:
        """Whether it is over, one way or the other."""
        return self._over.wait(seconds)

    def tell(self) -> None:
        """Raise what the commit of it raised."""
        if self.error is not None and self.changes == 1:
            raise self.error
        if self.error is not None:
            raise OperationalError(f"The commit of a shared transaction failed: {self.error}") from self.error


class Writers:
    """Whose turn it is among the threads of this process. Waiting is fair here; SQLite's own is not."""

    def __init__(self, *, longest_seconds: float = LONGEST_SECONDS) -> None:
        self._longest_seconds = longest_seconds
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._waiting = 0
        self._connection: Any = None  # of whoever has the turn
        self._group: _Group | None = None  # left open for one who waits; whoever has the turn cares for it
        self._alone_until = 0.0

    @property
    def waiting(self) -> int:
        """How many threads wait for their turn."""
        return self._waiting

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The turn for a transaction of one's own; what others have left open is committed first."""
        self._take_turn()
        try:
            if self._group is not None:
                self._end()
            yield
        finally:
            self._turn.release()

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """A transaction, perhaps with the changes of other threads; committed when the block is left.

        Raises what the block raises, and then nothing of it is stored, or the error of the commit.
        """
        if connection.in_atomic_block:  # part of a transaction that nobody else can see
            with self.alone(), transaction.atomic():
                yield
            return
        self._take_turn()
        try:
            self._group = group = self._group or self._begun()
            with group.lent():
                try:
                    with transaction.atomic() if group.changes else nullcontext():
                        yield
                    group.changes += 1
                except BaseException as error:
                    if not group.changes:
                        self._end(error)
                    elif group.is_broken:
                        self._end(OperationalError(f"Another thread ended a shared transaction: {error}"))
                    raise
        finally:
            try:
                if self._group is not None and not self._goes_on(self._group):
                    self._end()
                    if self._waiting:
                        time.sleep(GAP_SECONDS)
            finally:
                self._turn.release()
        while not group.wait(LOOK_SECONDS):
            with self.alone():  # whoever it was left to did not come: an interrupt can do that
                pass
        group.tell()

    def close(self) -> None:
        """Close the connection; the next one who writes opens another."""
        with self.alone():
            self._close()

    def _begun(self) -> _Group:
        try:
            if self._connection is None:
                self._connection = connections.create_connection(DEFAULT_DB_ALIAS)
                self._connection.inc_thread_sharing()
            return _Group(self._connection)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        shared, self._connection = self._connection, None
        if shared is not None:
            shared.close()

    def _take_turn(self) -> None:
        with self._counting:
            self._waiting += 1
        try:
            self._turn.acquire()
        finally:
            with self._counting:
                self._waiting -= 1

    def _goes_on(self, group: _Group) -> bool:
        """Whether this transaction is left to the next one who waits for the turn, and there is one."""
        now = time.monotonic()
        is_full = group.changes >= MOST_CHANGES or now - group.began > self._longest_seconds
        return bool(self._waiting) and not is_full and now >= self._alone_until

    def _end(self, error: BaseException | None = None) -> None:
        group = self._group
        assert group is not None
        try:
            group.end(error)
        finally:  # also after an interrupt: a transaction left open would take in all that is written later
            if group.wait(0):
                self._group = None
            if not group.left_all_in_order:
                self._close()
        if group.error is not None and group.changes > 1:
            self._alone_until = time.monotonic() + ALONE_SECONDS


def _forget() -> None:
    """A forked process must not touch a connection of the process it came from, not even to close it."""
    _inherited.append(_of_this_process._connection)
    _of_this_process.__init__()  # type: ignore[misc]


_inherited: list[Any] = []
_of_this_process = Writers()
alone = _of_this_process.alone
sharing = _of_this_process.sharing
close = _of_this_process.close
os.register_at_fork(after_in_child=_forget)
