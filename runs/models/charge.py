"""The ledger: what every model attempt used and cost, in rows that are only added.

What is priced anew is reversed and charged again, so that each sum over the ledger is the truth of now and
the old prices stay where they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from django.db import models
from django.db.models import Q
from django.utils import timezone

from runs.models.run import Run
from runs.models.step import Step
from runs.money import FRACTION, UnitPrices, Usage

PRICED_CLASSES = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output")
PRICES = (*PRICED_CLASSES, "web_search")
USAGE = (*(f"{name}_tokens" for name in (*PRICED_CLASSES, "thinking")), "web_searches")


class Price(models.Model):
    """Unit prices that charges refer to, in USD per million tokens; web searches per thousand.

    A row is the prices of one model in one context from one source in one version, and never changes.
    """

    model = models.CharField(max_length=128)
    source = models.CharField(max_length=100)
    input = models.DecimalField(max_digits=20, decimal_places=10)
    cache_write_5m = models.DecimalField(max_digits=20, decimal_places=10)
    cache_write_1h = models.DecimalField(max_digits=20, decimal_places=10)
    cache_read = models.DecimalField(max_digits=20, decimal_places=10)
    output = models.DecimalField(max_digits=20, decimal_places=10)
    web_search = models.DecimalField(max_digits=20, decimal_places=10)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "source", *PRICES], name="price_once"),
            models.CheckConstraint(
                condition=Q(**{f"{name}__gte": 0 for name in PRICES}), name="price_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} by {self.source}"

    @property
    def units(self) -> UnitPrices:
        """The same as the prices that `runs.money` computes with."""
        return UnitPrices(**{name: getattr(self, name) for name in PRICES}, source=self.source)


class Entry(models.IntegerChoices):
    CHARGE = 1, "Charge"
    REVERSAL = -1, "Reversal"


class Charge(models.Model):
    """One entry of the ledger. Amounts of a reversal are negative: whoever adds up adds up everything."""

    step = models.ForeignKey(Step, on_delete=models.CASCADE, related_name="charges", db_index=False)
    number = models.PositiveIntegerField(default=0)  # from 0: as they were booked when the attempt ended
    entry = models.SmallIntegerField(choices=Entry, default=Entry.CHARGE)
    takes_back = models.PositiveIntegerField(null=True, blank=True)  # the number that a reversal is about
    at = models.DateTimeField()  # the end of the attempt: the time that it counts in
    booked_at = models.DateTimeField(default=timezone.now)

    # What reports group by, as it was then; a row of a report reads nothing else.
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="charges", db_index=False)
    agent = models.CharField(max_length=64)
    user = models.CharField(max_length=150)  # who started the run, in words
    model = models.CharField(max_length=128)
    simulated = models.BooleanField()
    # The tools whose results the request was the first to hold, sorted, with commas; empty: the question.
    caused_by = models.CharField(max_length=300, blank=True, default="")
    failed = models.BooleanField(default=False)  # the attempt brought no answer
    estimated = models.BooleanField(default=False)  # nobody reported its usage, or not all of it
    # What selects a price besides the model, with commas: batch, fast, priority, us.
    context = models.CharField(max_length=60, blank=True, default="")

    # Usage by class, in tokens; thinking is part of output.
    input_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    thinking_tokens = models.BigIntegerField(default=0)
    web_searches = models.BigIntegerField(default=0)

    # Unpriced without a price. The amount is a whole number of FRACTIONs of a dollar: these add up exactly.
    price = models.ForeignKey(Price, null=True, blank=True, on_delete=models.PROTECT, db_index=False)
    amount = models.BigIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["step", "number"], name="charge_once"),
            models.CheckConstraint(
                condition=Q(price__isnull=True, amount__isnull=True)
                | Q(price__isnull=False, amount__isnull=False),
                name="charge_priced_or_not",
            ),
            models.CheckConstraint(condition=Q(entry__in=Entry.values), name="charge_entry_known"),
        ]
        indexes = [
            models.Index(fields=["at"], name="charge_at"),  # reports of a period
            models.Index(fields=["run", "at"], name="charge_of_run"),  # the run's own, and their hours
            models.Index(fields=["model"], condition=Q(price__isnull=True), name="charge_unpriced"),
            models.Index(  # statements: what was corrected in a month, few rows
                fields=["booked_at"], condition=Q(number__gt=0), name="charge_corrections"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_entry_display()} {self.number} of step {self.step_id}"

    @property
    def cost_usd(self) -> Decimal | None:
        """Exact USD; None when it has no price."""
        return None if self.amount is None else Decimal(self.amount) / FRACTION

    @property
    def charged(self) -> Decimal | None:
        """The amount without its sign, to be shown."""
        cost = self.cost_usd
        return None if cost is None else abs(cost)

    @property
    def usage(self) -> Usage:
        """What was used; negative in a reversal."""
        return Usage(**{name: getattr(self, name) for name in USAGE})

    @property
    def is_unpriced(self) -> bool:
        """Whether something was used that has no price."""
        return self.price_id is None and bool(self.usage.total_tokens)


def standing(entries: Sequence[Charge]) -> list[Charge]:
    """Those of the entries of steps that no reversal has taken back, in order."""
    taken = {(entry.step_id, entry.takes_back) for entry in entries if entry.takes_back is not None}
    return [
        entry for entry in entries if entry.takes_back is None and (entry.step_id, entry.number) not in taken
    ]
