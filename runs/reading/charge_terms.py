"""Terms of a search about the ledger: they have to hold for one and the same model call of a run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import or_

from django.db.models import Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Concat

from runs.models import Charge, Entry
from runs.reading.language import Term, stretch

SHORT = timedelta(days=2)  # charges of so long a time are read at once


def behind(terms: Sequence[Term], now: datetime) -> Q:
    """Runs with a charge that fits all of these."""
    return Q(Exists(_charges(terms, now).filter(run=OuterRef("pk"))))


def among(terms: Sequence[Term], now: datetime) -> Q | None:
    """The same as a list to begin with, when it comes from a short stretch of time; else None."""
    since, until = times(terms, now)
    if since is None or (until or now) - since > SHORT:
        return None
    return Q(pk__in=_charges(terms, now).values("run"))


def times(terms: Sequence[Term], now: datetime) -> tuple[datetime | None, datetime | None]:
    """The stretch that all of these leave."""
    stretches = [stretch(term.values[0], now) for term in terms if term.field == "charged"]
    begins = [since for since, _ in stretches if since is not None]
    ends = [until for _, until in stretches if until is not None]
    return max(begins, default=None), min(ends, default=None)


def _charges(terms: Sequence[Term], now: datetime) -> QuerySet[Charge]:
    charges = Charge.objects.order_by()
    since, until = times(terms, now)
    if since is not None:
        charges = charges.filter(at__gte=since)
    if until is not None:
        charges = charges.filter(at__lt=until)
    for term in terms:
        if term.field == "caused":
            names = Concat(Value(","), F("caused_by"), Value(","))
            charges = charges.alias(causes=names)
        if term.field in {"class", "charge"}:  # what was taken back does not count
            later = Charge.objects.filter(
                step=OuterRef("step"), entry=Entry.REVERSAL, number__gt=OuterRef("number")
            )
            charges = charges.filter(~Exists(later), entry=Entry.CHARGE)
        if term.field != "charged":
            conditions = (_condition(term.field, value, exact=term.phrase) for value in term.values)
            charges = charges.filter(reduce(or_, conditions))
    return charges


def _condition(name: str, value: str, *, exact: bool) -> Q:
    if name == "billed":
        begins = value.endswith("*") and not exact
        return Q(model__startswith=value.rstrip("*")) if begins else Q(model=value)
    if name == "caused":
        return Q(caused_by="") if value == "question" and not exact else Q(causes__contains=f",{value},")
    if name == "class":
        return Q(**{"web_searches__gt" if value == "web_search" else f"{value}_tokens__gt": 0})
    used = Q(input_tokens__gt=0) | Q(output_tokens__gt=0) | Q(cache_read_tokens__gt=0)
    written = Q(cache_write_5m_tokens__gt=0) | Q(cache_write_1h_tokens__gt=0)
    return {
        "unpriced": Q(price__isnull=True) & (used | written),
        "priced": Q(price__isnull=False),
        "failed": Q(failed=True),
        "answered": Q(failed=False),
        "estimated": Q(estimated=True),
    }[value]
