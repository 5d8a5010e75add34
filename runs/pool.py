"""Connections to PostgreSQL are few and shared by the threads of a process: hold one only while it is used.

A run spends its time waiting for the model and for tools. Whoever is about to wait gives the connection
back to the pool first, so that two hundred runs do with a handful. SQLite keeps its connection per thread:
there, opening one costs more than keeping it.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection


def give_back() -> None:
    """Return the connection of this thread to the pool; the next query takes one again.

    Does nothing on SQLite, and nothing within a transaction.
    """
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        connection.close()


def giving_back[**Arguments, Answer](ask: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """The same function, but it leaves no connection behind in this thread."""

    def asked(*arguments: Arguments.args, **named: Arguments.kwargs) -> Answer:
        try:
            return ask(*arguments, **named)
        finally:
            give_back()

    return asked
