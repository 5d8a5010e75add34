"""Statements of the hot path: a new row, some columns of a row.

Django builds and compiles each statement anew, which is most of what a recorded step costs. These are
built once per table and set of columns; values are prepared by the fields themselves, so that the rows are
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import batched
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model
from django.db.models.base import ModelState

from runs.models.sql import execute

# Name of the attribute, the field, and types whose values the database takes as they are.
Fields = Sequence[tuple[str, "Field[Any, Any]", frozenset[type]]]
# Place in a row, the column, and functions that turn a value of the database into one of the field.
Converters = Sequence[tuple[int, Any, Sequence[Callable[[Any, Any, Any], Any]]]]
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


def new[Row: Model](model: type[Row], **values: Any) -> Row:
    """What `model(**values)` makes, in a fraction of the time: no signal is sent, no argument is checked."""
    row = model.__new__(model)
    row._state = ModelState()
    own = vars(row)
    for field, default in _defaults(model):
        own[field] = default() if callable(default) else default
    for name, value in values.items():
        setattr(row, name, value)
    return row


def insert(row: Model) -> None:
    """Store a new row and give it its key."""
    statement, fields = _insertion(type(row))
    row.pk = execute(f'{statement} RETURNING "id"', _prepared(row, fields)).fetchone()[0]
    row._state.adding = False
    row._state.db = connection.alias


def append(model: type[Model], rows: Sequence[Mapping[str, Any]]) -> None:
    """Store new rows of this table, given as columns with their values, whose keys nobody needs."""
    _, fields = _insertion(model)
    for some in batched(rows, AT_ONCE, strict=False):
        current = connections[DEFAULT_DB_ALIAS]
        values = [
            value if type(value := row[name]) in plain else _value(value, field, current)
            for row in some
            for name, field, plain in fields
        ]
        execute(_insertion_of(model, len(some)), values)


def update(row: Model, names: Collection[str]) -> None:
    """Store these columns of a row that exists."""
    statement, fields = _alteration(type(row), frozenset(names))
    execute(statement, [*_prepared(row, fields), row.pk])


def select[Row: Model](model: type[Row], condition: str, values: Sequence[Any]) -> list[Row]:
    """The rows for which this SQL holds."""
    statement, names, converters = _selection(model, connection.vendor)
    cursor = execute(f"{statement} {condition}", values)
    with connection.wrap_database_errors:  # rows are made while they are fetched
        found = cursor.fetchall()
    return [model.from_db(DEFAULT_DB_ALIAS, names, _converted(row, converters)) for row in found]


def _prepared(row: Model, fields: Fields) -> list[Any]:
    values, current = vars(row), connections[DEFAULT_DB_ALIAS]
    return [
        value if type(value := values[name]) in plain else _value(value, field, current)
        for name, field, plain in fields
    ]


def _value(value: Any, field: Field[Any, Any], current: BaseDatabaseWrapper) -> Any:
    if type(value) is datetime and value.tzinfo is UTC:  # all that Django prepares in it is checked here
        return current.ops.adapt_datetimefield_value(value)
    return field.get_db_prep_save(value, current)


def _planned(fields: Iterable[Field[Any, Any]]) -> Fields:
    return [(field.attname, field, PLAIN.get(field.get_internal_type(), NOTHING)) for field in fields]


def _converted(row: Sequence[Any], converters: Converters) -> list[Any]:
    values = list(row)
    for place, column, functions in converters:
        for convert in functions:
            values[place] = convert(values[place], column, connection)
    return values


@cache
def _selection(model: type[Model], vendor: str) -> tuple[str, list[str], Converters]:
    """The statement as far as its condition, and what makes values of the database those of fields."""
    fields = model._meta.concrete_fields
    columns = [field.get_col(model._meta.db_table) for field in fields]
    converters = [
        [*connection.ops.get_db_converters(column), *column.get_db_converters(connection)]
        for column in columns
    ]
    statement = f'SELECT {", ".join(f'"{field.column}"' for field in fields)} FROM "{model._meta.db_table}"'  # noqa: S608
    names = [field.attname for field in fields]
    wanted = enumerate(zip(columns, converters, strict=True))
    return (
        statement,
        names,
        [(place, column, functions) for place, (column, functions) in wanted if functions],
    )


@cache
def _defaults(model: type[Model]) -> list[tuple[str, Any]]:
    return [
        (field.attname, field.default)
        if field.has_default() and callable(field.default)
        else (field.attname, field.get_default())
        for field in model._meta.concrete_fields
    ]


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
