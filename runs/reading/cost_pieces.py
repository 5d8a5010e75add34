"""Ranges of kept sums, and one query that adds them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from runs.models import CostSum


@dataclass(frozen=True)
class Piece:
    """Hours of sums: of whole days (24) or of hours (1)."""

    place: int
    length: int
    since: int
    until: int
    sign: int = 1  # -1: to be taken away


def summed(pieces: Sequence[Piece], dimensions: Sequence[int], measures: Sequence[str]) -> list[Any]:
    """Rows of (place, dimension, simulated, key, sums of the measures…)."""
    if not pieces:
        return []
    values = ", ".join(f"({p.place}, {p.length}, {p.since}, {p.until}, {p.sign})" for p in pieces)
    sums = ", ".join(f"SUM(piece.sign * s.{name})" for name in measures)
    columns = ", ".join(f"s.{name}" for name in ("dimension", "simulated", "key", *measures))
    wanted = ", ".join(str(int(dimension)) for dimension in dimensions)
    fitting = (
        f"{CostSum._meta.db_table} s WHERE s.hours = piece.length AND s.dimension IN ({wanted}) "
        "AND s.simulated IN (%s, %s) AND s.hour >= piece.since AND s.hour < piece.until"
    )
    # Each piece is looked up in the index: left alone, PostgreSQL compares all sums with all pieces.
    if connection.vendor == "postgresql":
        fitting = f"LATERAL (SELECT {columns} FROM {fitting} OFFSET 0) s"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH piece(place, length, since, until, sign) AS (VALUES {values}) "  # noqa: S608
            f"SELECT piece.place, s.dimension, s.simulated, s.key, {sums} FROM piece CROSS JOIN {fitting} "
            "GROUP BY piece.place, s.dimension, s.simulated, s.key",
            [False, True],
        )
        found: list[Any] = cursor.fetchall()
    return found
