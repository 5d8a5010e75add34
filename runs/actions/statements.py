"""Closing a month: its fingerprint is written down once, by whichever worker is first."""

from __future__ import annotations

from datetime import date

from django.db import transaction
from django.utils import timezone

from runs.actions.change import one_writer
from runs.models import Statement


def close_month(
    month: date, *, entries: int, amount: int, simulated_amount: int, sha256: str, version: int
) -> bool:
    """Keep what the entries of this month came to, in whole FRACTIONs; False when that was done already."""
    with one_writer(), transaction.atomic():
        _, made = Statement.objects.get_or_create(
            month=month,
            defaults={
                "entries": entries,
                "amount": amount,
                "simulated_amount": simulated_amount,
                "sha256": sha256,
                "version": version,
                "closed_at": timezone.now(),
            },
        )
    return made
