"""The full-text index: FTS5 on SQLite, a stored tsvector with GIN on PostgreSQL. Both hold the same tokens.

An entry is the text of one step at one time, or that of a run's question or answer (step 0). Its id says
which: entries of newer runs have higher ids, and those of one run are neighbours. Entries are only added:
text that became longer is one more entry. Nothing is stored but tokens and ids.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db import connection, transaction

from runs.tokens import positions

TABLE = "runs_searchentry"
VERSIONS = 4  # entries of one step
STEPS = 1 << 20  # steps of one run; later ones are not searched
OF_RUN = STEPS * VERSIONS
LAST_POSITION, MOST_POSITIONS = 16_383, 255  # bounds of a tsvector
AT_ONCE = 300  # entries that SQLite is asked for at once
FEW = 5_000  # so many hits are read at once; a word with more of them is common


def entry_id(run: int, step: int, version: int) -> int:
    """The key of an entry."""
    return run * OF_RUN + min(step, STEPS - 1) * VERSIONS + min(version, VERSIONS - 1)


def run_of(entry: int) -> int:
    """The run that an entry belongs to."""
    return entry // OF_RUN


def step_of(entry: int) -> int:
    """The step that an entry holds text of; 0 is question and answer."""
    return entry % OF_RUN // VERSIONS


@dataclass(frozen=True)
class Phrase:
    """Tokens that follow each other; of the last one perhaps only the beginning is given."""

    tokens: tuple[str, ...]
    begins: bool = False


@dataclass(frozen=True)
class Match:
    """What an entry has to hold: of each group at least one phrase."""

    groups: tuple[tuple[Phrase, ...], ...]

    def __bool__(self) -> bool:
        return bool(self.groups)

    @cached_property
    def text(self) -> str:
        """As the database of this installation writes it. Nothing in tokens has to be quoted."""
        if connection.vendor == "postgresql":
            return " & ".join(f"({' | '.join(map(_tsquery, group))})" for group in self.groups)
        return " AND ".join(f"({' OR '.join(map(_fts5, group))})" for group in self.groups)


def _fts5(phrase: Phrase) -> str:
    return f'"{" ".join(phrase.tokens)}"{"*" if phrase.begins else ""}'


def _tsquery(phrase: Phrase) -> str:
    quoted = [f"'{token}'" for token in phrase.tokens]
    return f"({' <-> '.join(quoted)}{':*' if phrase.begins else ''})"


def store(entries: Iterable[tuple[int, Sequence[str]]]) -> None:
    """Add entries, each its id and tokens. Call it in a transaction, with ids that are not `stored`."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            statement = f"INSERT INTO {TABLE} (id, document) VALUES (%s, %s::tsvector) ON CONFLICT DO NOTHING"  # noqa: S608
            cursor.executemany(statement, [(pk, _tsvector(found)) for pk, found in entries])
        else:
            statement = f"INSERT INTO {TABLE} (rowid, document) VALUES (%s, %s)"  # noqa: S608
            cursor.executemany(statement, [(pk, " ".join(found)) for pk, found in entries])


def _tsvector(found: Sequence[str]) -> str:
    known = positions(found[:LAST_POSITION])
    return " ".join(
        f"'{token}':{','.join(map(str, places[:MOST_POSITIONS]))}" for token, places in known.items()
    )


def stored(ids: Collection[int]) -> set[int]:
    """Those of these entries that exist."""
    table, column = (TABLE, "id") if connection.vendor == "postgresql" else (f"{TABLE}_docsize", "id")
    found: set[int] = set()
    wanted = list(ids)
    for start in range(0, len(wanted), 500):
        some = wanted[start : start + 500]
        places = ", ".join(["%s"] * len(some))
        found |= {row[0] for row in _rows(f"SELECT {column} FROM {table} WHERE {column} IN ({places})", some)}  # noqa: S608
    return found


def clear() -> None:
    """Forget all entries. Call it in a transaction."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"TRUNCATE {TABLE}")
        else:
            cursor.execute(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('delete-all')")  # noqa: S608


def begin_rebuild() -> None:
    """Before very many entries are added: PostgreSQL builds its index much faster afterwards, at once."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("DROP INDEX IF EXISTS search_document")


def end_rebuild() -> None:
    """After they were added; also when the rebuild broke off."""
    if connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL maintenance_work_mem = '256MB'")
            cursor.execute(f"CREATE INDEX IF NOT EXISTS search_document ON {TABLE} USING gin (document)")
            cursor.execute(f"ANALYZE {TABLE}")


def few(match: Match) -> list[int] | None:
    """All entries that match, oldest first, or None when there are more than FEW or it would take long."""
    most = FEW
    if connection.vendor == "postgresql":
        if _expected(match) > 4 * most:
            return None
        # Planned as if all were wanted: a limit would let the planner read the table instead of the index.
        query = (
            f"WITH hits AS MATERIALIZED (SELECT id FROM {TABLE} WHERE document @@ %s::tsquery) "  # noqa: S608
            "SELECT id FROM hits LIMIT %s"
        )
    else:
        query = f"SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH %s LIMIT %s"  # noqa: S608
    found = [row[0] for row in _rows(query, [match.text, most + 1])]
    return None if len(found) > most else sorted(found)


def _expected(match: Match) -> int:
    """How many entries the planner of PostgreSQL expects."""
    query = f"EXPLAIN (FORMAT JSON) SELECT id FROM {TABLE} WHERE document @@ %s::tsquery"  # noqa: S608
    plan = _rows(query, [match.text])[0][0]
    rows: int = plan[0]["Plan"]["Plan Rows"]
    return rows


def reads_whole_runs() -> bool:
    """Whether looking a word up in a run means to read all of its entries."""
    return connection.vendor == "postgresql"


def holders(match: Match, runs: Collection[int]) -> set[int]:
    """Those of these runs that have a matching entry."""
    if connection.vendor == "postgresql":
        return set(hits(match, list(runs)))
    query = f"SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH %s AND rowid BETWEEN %s AND %s LIMIT %s"  # noqa: S608
    found: set[int] = set()
    pks = sorted(runs)
    at = 0
    while at < len(pks):  # from hit to hit: runs without one between them cost nothing
        bounds = (pks[at] * OF_RUN, (pks[-1] + 1) * OF_RUN - 1)
        entries = [row[0] for row in _rows(query, [match.text, *bounds, AT_ONCE])]
        found.update(map(run_of, entries))
        if len(entries) < AT_ONCE:
            break
        at = bisect_right(pks, run_of(entries[-1]))
    return found.intersection(pks)


def hits(match: Match, runs: Sequence[int], each: int = 1) -> dict[int, list[int]]:
    """For each of these runs that has some: its first matching entries, at most `each`."""
    bounds = [(run, run * OF_RUN, (run + 1) * OF_RUN - 1) for run in runs]
    if connection.vendor == "postgresql":
        # OFFSET 0: the entries of a run are read by their keys and compared, not found by the word first.
        query = (
            "SELECT r.run, e.id FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS r(run, low, high), "  # noqa: S608
            f"LATERAL (SELECT id FROM (SELECT id, document FROM {TABLE} WHERE id BETWEEN r.low AND r.high "
            "ORDER BY id OFFSET 0) own WHERE document @@ %s::tsquery LIMIT %s) e"
        )
        lists = [[bound[part] for bound in bounds] for part in range(3)]
        rows: Iterable[tuple[int, int]] = _rows(query, [*lists, match.text, each])
    else:
        query = f"SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH %s AND rowid BETWEEN %s AND %s LIMIT %s"  # noqa: S608
        rows = [
            (run, row[0]) for run, low, high in bounds for row in _rows(query, [match.text, low, high, each])
        ]
    found: dict[int, list[int]] = {}
    for run, entry in rows:
        found.setdefault(run, []).append(entry)
    return found


def _rows(query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
