"""The question "may this tool call run?", and the votes on it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from runs.models.run import Run
from runs.models.step import Step
from runs.tokens import fold
from tools.policy import Ask

HEADLINE = 300
COOLING_OFF = "cooling_off"  # the reason of a run that waits before it starts what cannot be undone


class ApprovalState(models.TextChoices):
    PENDING = "pending", "Pending"
    APPROVED = "approved", "Approved"
    REJECTED = "rejected", "Rejected"
    EXPIRED = "expired", "Expired"
    CANCELLED = "cancelled", "Cancelled"
    INVALIDATED = "invalidated", "Invalidated"
    SUPERSEDED = "superseded", "Replaced"  # a person changed the arguments: the next revision is asked
    REVOKED = "revoked", "Revoked"  # a person took the approval back before the call started


class Origin(models.TextChoices):
    """Where a revision comes from."""

    PROPOSED = "proposed", "Proposed by the agent"
    EDITED = "edited", "Changed by a person"
    DRIFTED = "drifted", "Asked again, because what it is about changed"


class Verdict(models.TextChoices):
    APPROVE = "approve", "Approve"
    REJECT = "reject", "Reject"


class Approval(models.Model):
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="approvals")
    step = models.ForeignKey(Step, on_delete=models.CASCADE, related_name="approvals")
    revision = models.PositiveIntegerField(default=1)
    # The canonical bytes that were approved, as text, and the digest that binds a vote to them.
    arguments = models.TextField()
    digest = models.CharField(max_length=64)
    environment = models.CharField(max_length=64)
    rule = models.CharField(max_length=100)
    rule_reason = models.TextField()
    # The version of the rule that asked, when people wrote it, and of all rules ("": before they had one).
    rule_change = models.PositiveBigIntegerField(null=True, blank=True)
    policy_version = models.CharField(max_length=64, blank=True, default="")
    quorum = models.PositiveIntegerField(default=1)
    roles = models.JSONField(default=list, blank=True)  # names of groups whose members may decide; none: all
    self_approval = models.BooleanField(default=True)  # may whoever started the run decide?
    cooling_off_seconds = models.PositiveIntegerField(default=0)  # between the decision and START
    origin = models.CharField(max_length=8, choices=Origin, default=Origin.PROPOSED)
    edited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="revisions"
    )
    # Against the revision before, as JSON: [{what, was, now}], arguments or what the dry run saw.
    differences = models.TextField(blank=True, default="")
    # What the reviewer sees: {headline, environment, chips, changes, reversible, object, basis}. Written by
    # the tool from arguments and a dry run; never by the model.
    preview = models.TextField()
    headline = models.CharField(max_length=HEADLINE, blank=True, default="")  # of the preview
    searched = models.TextField(blank=True, default="")  # the headline, folded as what is looked for
    state = models.CharField(max_length=12, choices=ApprovalState, default=ApprovalState.PENDING)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()  # to decide
    execute_by = models.DateTimeField(null=True, blank=True)  # to start, once approved
    not_before = models.DateTimeField(null=True, blank=True)  # cooling-off: until then it can be taken back
    execute_within_seconds = models.PositiveIntegerField(default=600)
    decided_at = models.DateTimeField(null=True, blank=True)
    redeemed_at = models.DateTimeField(null=True, blank=True)  # set with START: approved is not executed
    # Who or what ended it otherwise than by votes and deadlines, and why: revoked, superseded, invalidated.
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.CharField(max_length=150, blank=True, default="")
    ended_why = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["expires_at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["step", "revision"], name="approval_revision_once"),
            models.UniqueConstraint(
                fields=["step"], condition=Q(state="pending"), name="approval_one_open_per_call"
            ),
            models.CheckConstraint(condition=Q(quorum__gte=1), name="approval_needs_someone"),
            models.CheckConstraint(condition=Q(state__in=ApprovalState.values), name="approval_state_known"),
            models.CheckConstraint(condition=Q(origin__in=Origin.values), name="approval_origin_known"),
        ]
        indexes = [
            models.Index(  # the queue, and the sweeper of deadlines
                fields=["expires_at"], condition=Q(state="pending"), name="approval_pending"
            ),
            models.Index(fields=["-decided_at"], name="approval_decided"),  # the decided tab
            models.Index(  # the queue: what is about to start
                fields=["not_before"],
                condition=Q(state="approved", redeemed_at__isnull=True, not_before__isnull=False),
                name="approval_cooling_off",
            ),
        ]

    def __str__(self) -> str:
        return f"approval {self.pk} of step {self.step_id}: {self.state}"

    def save(self, **options: Any) -> None:
        """Store it; the headline follows the preview."""
        names = options.get("update_fields")
        if names is None or "preview" in names:
            self.headline = self.headline_of_preview
            self.searched = fold(self.headline)
            if names is not None:
                options["update_fields"] = {*names, "headline", "searched"}
        super().save(**options)

    @property
    def headline_of_preview(self) -> str:
        """The headline as it is stored."""
        headline = str(self.card.get("headline") or "").encode("utf-8", "replace").decode()
        return headline.replace("\0", "")[:HEADLINE]

    @property
    def is_open(self) -> bool:
        return self.state == ApprovalState.PENDING

    @property
    def may_start(self) -> bool:
        """Approved, and nothing has started on it yet: it can still be taken back."""
        return self.state == ApprovalState.APPROVED and self.redeemed_at is None

    def has_expired(self, now: datetime) -> bool:
        return now >= self.expires_at

    @property
    def ask(self) -> Ask:
        """What was demanded of people when they were asked."""
        return Ask(
            quorum=self.quorum,
            roles=tuple(self.roles),
            self_approval=self.self_approval,
            execute_within_seconds=self.execute_within_seconds,
            cooling_off_seconds=self.cooling_off_seconds,
        )

    @property
    def cools_off_seconds(self) -> float:
        """How long its call waits after the last approving vote: as long as its rule says, and what cannot be
        undone afterwards at least as long as the installation says."""
        installed = 0.0 if self.card.get("reversible") else settings.AGENTOPS_COOLING_OFF_SECONDS
        return float(max(installed, self.cooling_off_seconds))

    @property
    def card(self) -> dict[str, Any]:
        """The preview as data for the approval card."""
        loaded: dict[str, Any] = json.loads(self.preview)
        return loaded

    @property
    def changed(self) -> list[dict[str, str]]:
        """What is different from the revision before: [{what, was, now}], all of it text."""
        loaded: list[dict[str, str]] = json.loads(self.differences) if self.differences else []
        return loaded


class Vote(models.Model):
    approval = models.ForeignKey(Approval, on_delete=models.CASCADE, related_name="votes")
    revision = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)
    voter = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="votes")
    verdict = models.CharField(max_length=8, choices=Verdict)
    reason = models.TextField(blank=True, default="")
    seconds_on_card = models.FloatField(null=True, blank=True)  # None: nobody knows
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["approval", "revision", "voter"], name="vote_once_per_person_and_revision"
            ),
            models.CheckConstraint(condition=Q(verdict__in=Verdict.values), name="vote_verdict_known"),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} on approval {self.approval_id}"
