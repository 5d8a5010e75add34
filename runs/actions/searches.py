"""Searches that people keep, for themselves or for everybody."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from runs.actions.change import one_writer
from runs.actions.errors import ActionError
from runs.models import SavedSearch

MOST_SEARCHES = 50


def save_search(
    *, owner: User, name: str, query: str, sort: str = "", is_shared: bool = False, is_start: bool = False
) -> SavedSearch:
    """Keep a search under a name; one of the same name is replaced. Raises ActionError."""
    name = " ".join(name.split())
    if not 0 < len(name) <= 60:
        raise ActionError("Give the search a name of up to 60 characters.")
    if len(query) > 500:
        raise ActionError("The search is longer than 500 characters. Leave something out.")
    with one_writer(), transaction.atomic():
        mine = SavedSearch.objects.filter(owner=owner)
        if mine.exclude(name=name).count() >= MOST_SEARCHES:
            raise ActionError(f"You have {MOST_SEARCHES} searches. Remove one first.")
        if is_start:
            mine.update(is_start=False)
        saved, _ = SavedSearch.objects.update_or_create(
            owner=owner,
            name=name,
            defaults={
                "query": query, "sort": sort, "is_shared": is_shared, "is_start": is_start,
                "saved_at": timezone.now(),
            },
        )  # fmt: skip
    return saved


def remove_search(*, pk: int, owner: User) -> str:
    """Forget a search of one's own; its name. Raises ActionError when there is none."""
    with one_writer(), transaction.atomic():
        saved = SavedSearch.objects.filter(pk=pk, owner=owner).first()
        if saved is None:
            raise ActionError("There is no such search of yours. It may have been removed already.")
        saved.delete()
    return saved.name
