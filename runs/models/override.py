"""Prices that people set: they come before the price list. Past charges keep theirs until repriced."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from runs.models.charge import PRICES
from runs.money import Override, UnitPrices

AUTHOR_SHOWN = 20  # characters of a name that a source has room for
# A call in the priority tier or in the US has what is derived from the others, unless it is set on its own.
CONTEXTS = {
    "": "standard",
    "batch": "batch",
    "fast": "fast",
    "priority": "priority tier",
    "us": "standard, US inference",
    "batch,us": "batch, US inference",
    "fast,us": "fast, US inference",
    "priority,us": "priority tier, US inference",
}


def _price() -> models.DecimalField[Any, Any]:
    return models.DecimalField(max_digits=14, decimal_places=4)


class PriceOverride(models.Model):
    """Unit prices of one model in one context, in USD per million tokens; web searches per thousand.

    It holds for calls that began at or after `valid_from` (empty: since ever) and before `valid_to` (empty:
    for good). Where both are the same it holds never: it was withdrawn.
    """

    model = models.CharField(max_length=128)  # also means its dated versions, unless they have their own
    context = models.CharField(max_length=60, blank=True, default="")
    input = _price()
    cache_write_5m = _price()
    cache_write_1h = _price()
    cache_read = _price()
    output = _price()
    web_search = _price()
    valid_from = models.DateTimeField(null=True, blank=True)
    valid_to = models.DateTimeField(null=True, blank=True)
    revision = models.PositiveIntegerField(default=1)
    set_by = models.CharField(max_length=150)  # who made the present revision
    set_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["model", "context", F("valid_from").asc(nulls_first=True), "id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(**{f"{name}__gte": 0 for name in PRICES}), name="override_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(valid_from__isnull=True)
                | Q(valid_to__isnull=True)
                | Q(valid_to__gte=F("valid_from")),
                name="override_ends_after_its_start",
            ),
        ]
        permissions = [("price", "Can set prices")]

    def __str__(self) -> str:
        return f"override {self.pk} of {self.model}"

    @property
    def source(self) -> str:
        """What a charge says about where its price came from."""
        return f"override {self.pk} of {self.set_by[:AUTHOR_SHOWN]}, revision {self.revision}"

    @property
    def context_words(self) -> str:
        """Its context for people."""
        return CONTEXTS.get(self.context, self.context)

    @property
    def is_withdrawn(self) -> bool:
        return self.valid_to is not None and self.valid_to == self.valid_from

    @property
    def rule(self) -> Override:
        """The same as `runs.money` resolves prices with."""
        return Override(
            model=self.model,
            words=frozenset(word for word in self.context.split(",") if word),
            prices=UnitPrices(**{name: getattr(self, name) for name in PRICES}, source=self.source),
            since=self.valid_from,
            until=self.valid_to,
        )

    @property
    def values(self) -> dict[str, Any]:
        """What can be changed, ready for JSON; amounts as text, so that they stay exact."""
        prices = {name: f"{getattr(self, name).normalize():f}" for name in PRICES}
        return prices | {"valid_from": _iso(self.valid_from), "valid_to": _iso(self.valid_to)}


class WhatHappened(models.TextChoices):
    SET = "set", "Set"
    CHANGED = "changed", "Changed"
    ENDED = "ended", "Ended"
    WITHDRAWN = "withdrawn", "Withdrawn"


class PriceChange(models.Model):
    """One revision of an override: who made it, why, and what it said before and after. Only added to."""

    override = models.ForeignKey(PriceOverride, on_delete=models.PROTECT, related_name="changes")
    revision = models.PositiveIntegerField()
    what = models.CharField(max_length=9, choices=WhatHappened)
    before = models.TextField(blank=True, default="")  # JSON of PriceOverride.values; empty: it was new
    after = models.TextField()
    actor = models.CharField(max_length=150)
    reason = models.CharField(max_length=300)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["override", "revision"], name="price_change_once"),
        ]

    def __str__(self) -> str:
        return f"revision {self.revision} of override {self.override_id}"


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()
