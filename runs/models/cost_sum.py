"""Sums over the ledger of charges by hour and day, so that a report of a year reads a few thousand rows.

They are derived: a sum counts only while the seal of its hour or day is there. Who changes what an hour
says takes its seal away, and whoever reads takes what has no seal from the ledger itself.
"""

from __future__ import annotations

from django.db import models

from runs.models.run import Run

# What is counted otherwise gets another number: sums of an earlier one are counted anew.
VERSION = 2

TOKEN_MEASURES = (
    "input_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "output_tokens",
    "thinking_tokens",
    "web_searches",
)
AMOUNT_MEASURES = (
    "input_amount",
    "cache_write_5m_amount",
    "cache_write_1h_amount",
    "cache_read_amount",
    "output_amount",
    "web_search_amount",
)
MEASURES = (
    *("calls", "priced", "unpriced", "unpriced_tokens", "failed", "estimated", "runs"),
    *TOKEN_MEASURES,
    *("amount", "uncached_amount"),
    *AMOUNT_MEASURES,
)


class Dimension(models.IntegerChoices):
    """What sums are kept by. Each of the first seven divides all charges: its keys add up to the total."""

    TOTAL = 0, "Total"
    AGENT = 1, "Agent"
    MODEL = 2, "Model"
    USER = 3, "User"
    TAGS = 4, "Tags"  # all tags of the run, with commas
    CAUSE = 5, "Tools"  # all tools that caused the request, with commas
    OUTCOME = 6, "Outcome"  # status of the run, or open; an attempt without an answer has LOST behind it
    MISS = 7, "Cache"  # why input was not read from the cache: amount is what that cost
    STEP = 8, "Step"  # the most expensive steps alone


class CostSeal(models.Model):
    """That the sums of an hour or of a UTC day are there and hold. Unsealed: somebody is counting."""

    hour = models.PositiveIntegerField()  # hours since 1970, UTC
    hours = models.PositiveSmallIntegerField()  # 1 or 24
    version = models.PositiveSmallIntegerField()
    sealed = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["hours", "hour"], name="cost_seal_once")]

    def __str__(self) -> str:
        return f"{self.hours} h from {self.hour}{'' if self.sealed else ', being counted'}"


class CostSum(models.Model):
    """Sums of one hour or day under one key. Amounts are whole FRACTIONs of a dollar, as in the ledger."""

    hour = models.PositiveIntegerField()
    hours = models.PositiveSmallIntegerField()
    dimension = models.PositiveSmallIntegerField(choices=Dimension)
    simulated = models.BooleanField()
    key = models.CharField(max_length=900, blank=True)

    calls = models.BigIntegerField(default=0)  # attempts
    priced = models.BigIntegerField(default=0)  # of them with a price
    unpriced = models.BigIntegerField(default=0)  # of them without one that used something
    unpriced_tokens = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)  # of them without an answer
    estimated = models.BigIntegerField(default=0)
    runs = models.BigIntegerField(default=0)  # runs whose first charge of all is in this hour
    input_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    thinking_tokens = models.BigIntegerField(default=0)
    web_searches = models.BigIntegerField(default=0)
    amount = models.BigIntegerField(default=0)
    uncached_amount = models.BigIntegerField(default=0)  # the same tokens without a cache
    input_amount = models.BigIntegerField(default=0)
    cache_write_5m_amount = models.BigIntegerField(default=0)
    cache_write_1h_amount = models.BigIntegerField(default=0)
    cache_read_amount = models.BigIntegerField(default=0)
    output_amount = models.BigIntegerField(default=0)
    web_search_amount = models.BigIntegerField(default=0)

    class Meta:
        indexes = [  # reports; the bars of a chart read nothing but this index
            models.Index(
                fields=["hours", "dimension", "simulated", "hour", "key", "amount", "unpriced"],
                name="cost_sum_bars",
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_dimension_display()} {self.key}, {self.hours} h from {self.hour}"


class CostAcross(models.Model):
    """A run with charges in this hour that had some before: it is not counted as a run again."""

    hour = models.PositiveIntegerField()
    first_at = models.DateTimeField()  # its first charge
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="+", db_index=False)

    class Meta:
        indexes = [models.Index(fields=["hour", "first_at", "run"], name="cost_across_hours")]

    def __str__(self) -> str:
        return f"run {self.run_id} in hour {self.hour}"
