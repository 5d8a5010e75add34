"""Several queries that see one state of the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def snapshot() -> Iterator[None]:
    """All that is read within is of one moment; nothing may be written. Within a transaction: that one."""
    if connection.in_atomic_block or _is_open():
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
    else:  # not by Django: its transactions are IMMEDIATE, and readers would queue with writers
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")


def _is_open() -> bool:
    return (
        connection.vendor == "sqlite"
        and connection.connection is not None
        and (connection.connection.in_transaction)
    )
