"""One statement of the hot path, without Django's query builder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections


def execute(statement: str, values: Sequence[Any]) -> Any:
    """Run this statement, with %s for each value; its cursor.

    On SQLite without what Django does around each statement, which costs more than most of them: values must
    be such as the database takes, placeholders are translated once, and no log of queries is kept.
    """
    current = connections[DEFAULT_DB_ALIAS]
    if current.vendor != "sqlite":
        cursor = current.cursor()
        cursor.execute(statement, values)
        return cursor
    current.validate_no_broken_transaction()
    current.ensure_connection()
    with current.wrap_database_errors:
        return current.connection.execute(_for_sqlite(statement), values)


@cache
def _for_sqlite(statement: str) -> str:
    return statement.replace("%s", "?")
