"""Tags and notes on runs, and searches that were saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.db.models import Q

from runs.models import Run, RunNote, RunTag, SavedSearch

MOST_SHARED = 100


@dataclass(frozen=True)
class Labels:
    """What people wrote on one run."""

    run: Run
    tags: tuple[RunTag, ...]
    notes: tuple[RunNote, ...]


def read_labels(run: Run) -> Labels:
    """Tags and notes of one run: two queries."""
    return Labels(run, tuple(RunTag.objects.filter(run=run)), tuple(RunNote.objects.filter(run=run)))


def tags_of(pks: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The tags of these runs by name: one query."""
    found: dict[int, list[str]] = {}
    for run, name in RunTag.objects.filter(run__in=pks).order_by("name").values_list("run_id", "name"):
        found.setdefault(run, []).append(name)
    return {run: tuple(names) for run, names in found.items()}


@dataclass(frozen=True)
class Kept:
    """A saved search for whoever looks at the list."""

    pk: int
    name: str
    query: str
    address: str
    by: str  # who shared it; empty for one's own
    is_shared: bool
    is_start: bool


def read_searches(viewer: User) -> list[Kept]:
    """One's own searches, then those that others share: one query."""
    rows = SavedSearch.objects.filter(Q(owner=viewer) | Q(is_shared=True)).select_related("owner")
    kept = [
        Kept(
            pk=row.pk,
            name=row.name,
            query=row.query,
            address=address_of(row),
            by="" if row.owner_id == viewer.pk else row.owner.get_username(),
            is_shared=row.is_shared,
            is_start=row.is_start and row.owner_id == viewer.pk,
        )
        for row in rows[:MOST_SHARED]
    ]
    return sorted(kept, key=lambda search: (bool(search.by), search.name.casefold()))


def address_of(search: SavedSearch) -> str:
    """The query string of its list; `q` stands in it also when it is empty: it asks for no start page."""
    return urlencode({"q": search.query} | ({"sort": search.sort} if search.sort else {}))


def start_page(viewer: User) -> str | None:
    """The query string of what this person wants to see first, if they said so."""
    search = SavedSearch.objects.filter(owner=viewer, is_start=True).first()
    return address_of(search) if search is not None else None
