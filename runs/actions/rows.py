"""Statements of the hot path: a new row, some columns of a row.

Django builds and compiles each statement anew, which is most of what a recorded step costs. These are
built once per table and set of columns; values are prepared by the fields themselves, so that the rows are
the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import batched
from typing import Any

from django.db import connection
from django.db.models import Field, Model

# Name of the attribute, the field, and types whose values the database takes as they are.
Fields = Sequence[tuple[str, "Field[Any, Any]", frozenset[type]]]
TEXT: frozenset[type] = frozenset({str, type(None)})
NUMBER: frozenset[type] = frozenset({int, float, type(None)})
YES_OR_NO: frozenset[type] = frozenset({bool})
PLAIN: dict[str, frozenset[type]] = {
    "CharField": TEXT,
    "TextField": TEXT,
    "FloatField": NUMBER,
    "PositiveIntegerField": NUMBER,
    "PositiveBigIntegerField": NUMBER,
    "BigIntegerField": NUMBER,
    "SmallIntegerField": NUMBER,
    "ForeignKey": NUMBER,
    "BooleanField": YES_OR_NO,
}
AT_ONCE = 20  # rows of one statement
NOTHING: frozenset[type] = frozenset({type(None)})


def insert(row: Model) -> None:
    """Store a new row and give it its key."""
    statement, fields = _insertion(type(row))
    with connection.cursor() as cursor:
        cursor.execute(f'{statement} RETURNING "id"', _prepared(row, fields))
        row.pk = cursor.fetchone()[0]
    row._state.adding = False
    row._state.db = connection.alias


def append(model: type[Model], rows: Sequence[Mapping[str, Any]]) -> None:
    """Store new rows of this table, given as columns with their values, whose keys nobody needs."""
    _, fields = _insertion(model)
    for some in batched(rows, AT_ONCE, strict=False):
        values = [_value(row[name], field, plain) for row in some for name, field, plain in fields]
        with connection.cursor() as cursor:
            cursor.execute(_insertion_of(model, len(some)), values)


def update(row: Model, names: Collection[str]) -> None:
    """Store these columns of a row that exists."""
    statement, fields = _alteration(type(row), frozenset(names))
    with connection.cursor() as cursor:
        cursor.execute(statement, [*_prepared(row, fields), row.pk])


def _prepared(row: Model, fields: Fields) -> list[Any]:
    values = vars(row)
    return [_value(values[name], field, plain) for name, field, plain in fields]


def _value(value: Any, field: Field[Any, Any], plain: frozenset[type]) -> Any:
    if type(value) in plain:
        return value
    if type(value) is datetime and value.tzinfo is UTC:  # all that Django prepares in it is checked here
        return connection.ops.adapt_datetimefield_value(value)
    return field.get_db_prep_save(value, connection)


def _planned(fields: Iterable[Field[Any, Any]]) -> Fields:
    return [(field.attname, field, PLAIN.get(field.get_internal_type(), NOTHING)) for field in fields]


@cache
def _insertion(model: type[Model]) -> tuple[str, Fields]:
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    columns = ", ".join(f'"{field.column}"' for field in fields)
    places = ", ".join(["%s"] * len(fields))
    return f'INSERT INTO "{model._meta.db_table}" ({columns}) VALUES ({places})', _planned(fields)  # noqa: S608


@cache
def _insertion_of(model: type[Model], rows: int) -> str:
    """One statement for several rows: between two statements another thread may take the interpreter."""
    statement, fields = _insertion(model)
    return statement + f", ({', '.join(['%s'] * len(fields))})" * (rows - 1)


@cache
def _alteration(model: type[Model], names: frozenset[str]) -> tuple[str, Fields]:
    fields = [field for field in model._meta.concrete_fields if field.name in names]
    columns = ", ".join(f'"{field.column}" = %s' for field in fields)
    return f'UPDATE "{model._meta.db_table}" SET {columns} WHERE "id" = %s', _planned(fields)  # noqa: S608
