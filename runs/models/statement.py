"""The fingerprints of monthly statements: a row for each month that is over, written once."""

from __future__ import annotations

from decimal import Decimal

from django.db import models

from runs.money import FRACTION


class Statement(models.Model):
    """How many entries of the ledger a closed month has, their sums and their digest. It never changes."""

    month = models.DateField(unique=True)  # its first day
    entries = models.PositiveBigIntegerField()
    # Sums in whole FRACTIONs of a dollar, of entries with a price.
    amount = models.BigIntegerField()
    simulated_amount = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    version = models.PositiveSmallIntegerField(default=1)  # of the canonical line
    closed_at = models.DateTimeField()

    class Meta:
        ordering = ["-month"]
        constraints = [
            models.CheckConstraint(condition=models.Q(month__day=1), name="statement_of_a_whole_month")
        ]

    def __str__(self) -> str:
        return f"statement of {self.month:%Y-%m}: {self.entries} entries, ${self.usd:.2f}"

    @property
    def usd(self) -> Decimal:
        """The sum of what the API did."""
        return Decimal(self.amount) / FRACTION

    @property
    def simulated_usd(self) -> Decimal:
        """The sum of what the simulator did."""
        return Decimal(self.simulated_amount) / FRACTION
