"""Searches that list the runs behind a number of the cost report."""

from __future__ import annotations

from datetime import datetime

from runs.reading.language import Query, Term, is_plain

NOTHING = {"tag": Term("has", ("tag",), negated=True), "caused": Term("caused", ("question",))}


def listed(since: datetime, until: datetime, simulated: bool, *conditions: tuple[str, str]) -> str:
    """The runs with a charge in [since, until), to the second, that fits all of these (field, value)."""
    terms = [
        Term("charged", (f"{since:%Y-%m-%dT%H:%M:%S}..{until:%Y-%m-%dT%H:%M:%S}",)),
        Term("is", ("simulated" if simulated else "live",)),
    ]
    for field, value in conditions:
        found = NOTHING.get(field) if not value else None
        is_exact = not is_plain(value) or value.endswith("*")  # in quotation marks a star is one
        terms.append(found or Term(field, (value,), phrase=is_exact))
    return str(Query(tuple(terms)))
