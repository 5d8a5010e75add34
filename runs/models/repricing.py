"""Charges priced anew: what would change, bound by a digest, and then what was changed, run by run."""

from __future__ import annotations

from decimal import Decimal

from django.db import models
from django.db.models import Q
from django.utils import timezone

from runs.models.run import Run
from runs.money import FRACTION


class RepricingState(models.TextChoices):
    DRY_RUN = "dry_run", "Dry run"
    APPLYING = "applying", "Being applied"
    APPLIED = "applied", "Applied"


class Repricing(models.Model):
    """A dry run over the charges of a period. It becomes the record of what was done when it is applied."""

    state = models.CharField(max_length=8, choices=RepricingState, default=RepricingState.DRY_RUN)
    since = models.DateTimeField()  # charges whose attempt ended in this time
    until = models.DateTimeField()
    model = models.CharField(max_length=128, blank=True, default="")  # empty: all
    agent = models.CharField(max_length=64, blank=True, default="")
    prices = models.CharField(max_length=120)  # the version of all prices that it was made with
    digest = models.CharField(max_length=64)  # of every change of every run
    run_count = models.PositiveIntegerField(default=0)
    charge_count = models.PositiveIntegerField(default=0)
    # Whole FRACTIONs of a dollar, over the charges that change, simulated ones included: a check sum, shown
    # nowhere as one amount. Those without a price count as nothing.
    before = models.BigIntegerField(default=0)
    after = models.BigIntegerField(default=0)
    made_by = models.CharField(max_length=150)
    made_at = models.DateTimeField(default=timezone.now)
    applied_by = models.CharField(max_length=150, blank=True, default="")
    applied_at = models.DateTimeField(null=True, blank=True)  # when somebody said so
    finished_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["state"], condition=Q(state="applying"), name="repricing_one_at_a_time"
            ),
            models.CheckConstraint(
                condition=Q(state__in=RepricingState.values), name="repricing_state_known"
            ),
        ]

    def __str__(self) -> str:
        return f"repricing {self.pk}"


class LineState(models.TextChoices):
    PLANNED = "planned", "Planned"
    APPLIED = "applied", "Applied"
    CHANGED = "changed", "Changed meanwhile"  # it was left as it is: it is not what the dry run showed


class RepricingLine(models.Model):
    """What changes in one run at one model. The changes of a run are applied together."""

    repricing = models.ForeignKey(Repricing, on_delete=models.CASCADE, related_name="lines", db_index=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="repricing_lines")
    model = models.CharField(max_length=128)
    simulated = models.BooleanField()
    charges = models.PositiveIntegerField()
    newly_priced = models.PositiveIntegerField(default=0)  # they had no price
    newly_unpriced = models.PositiveIntegerField(default=0)  # they lose it
    before = models.BigIntegerField()
    after = models.BigIntegerField()
    digest = models.CharField(max_length=64)  # of all changes of the run
    state = models.CharField(max_length=7, choices=LineState, default=LineState.PLANNED)

    class Meta:
        ordering = ["run_id", "model"]
        constraints = [
            models.UniqueConstraint(fields=["repricing", "run", "model"], name="repricing_line_once"),
        ]
        indexes = [
            models.Index(  # whoever applies it: what is left to do
                fields=["repricing", "run"], condition=Q(state="planned"), name="repricing_left"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.repricing_id}: run {self.run_id}, {self.model}"

    @property
    def before_usd(self) -> Decimal:
        return Decimal(self.before) / FRACTION

    @property
    def after_usd(self) -> Decimal:
        return Decimal(self.after) / FRACTION

    @property
    def difference_usd(self) -> Decimal:
        return self.after_usd - self.before_usd
