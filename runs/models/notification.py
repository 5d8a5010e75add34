"""Where people are told of approvals and budgets, and each message to them: an outbox of rows."""

from __future__ import annotations

import json
import uuid
from typing import Any
from urllib.parse import urlsplit

from django.db import models
from django.db.models import Q

from runs.models.approval import Approval
from runs.models.run import Run


class ChannelKind(models.TextChoices):
    JSON = "json", "Webhook, our JSON"
    SLACK = "slack", "Webhook, Slack-compatible"
    EMAIL = "email", "E-mail"


class NoticeKind(models.TextChoices):
    ASKED = "approval.asked", "An approval is asked"
    EXPIRING = "approval.expiring", "Its deadline is near and nobody decided"
    DECIDED = "approval.decided", "It is approved or rejected"
    EXPIRED = "approval.expired", "Its deadline passed"
    WITHDRAWN = "approval.withdrawn", "It is withdrawn: the run ended, or the call changed"
    ENDED = "call.ended", "The approved call succeeded, failed, or has an unknown outcome"
    RELAPSED = "call.relapsed", "What an approved call had cured came back"
    BUDGET = "budget.reached", "A budget reached a threshold, or had no room for a call"
    COSTS = "costs.summary", "A summary of costs"
    TEST = "test", "A test"


class DeliveryState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    SENDING = "sending", "Sending"
    SENT = "sent", "Sent"
    FAILED = "failed", "Failed"
    DROPPED = "dropped", "Not needed"


UNDER_WAY = (DeliveryState.WAITING, DeliveryState.SENDING)


class NotificationChannel(models.Model):
    name = models.CharField(max_length=80, unique=True)
    kind = models.CharField(max_length=8, choices=ChannelKind)
    enabled = models.BooleanField(default=True)
    url = models.TextField(blank=True, default="")  # of a webhook; often a secret itself
    secret = models.CharField(max_length=100, blank=True, default="")  # whsec_…, signs webhooks
    recipients = models.TextField(blank=True, default="")  # of e-mail, separated by commas
    # Which notices, agents and environments it is for; no agents or environments: all.
    notices = models.JSONField(default=list)
    agents = models.JSONField(default=list)
    environments = models.JSONField(default=list)
    # The reminder comes when so much of the time to decide is left: percent of it, or minutes.
    remind_at = models.PositiveIntegerField(default=25)
    remind_unit = models.CharField(max_length=8, default="percent")
    changed_by = models.CharField(max_length=150)
    changed_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
        permissions = [("notify", "Can manage notifications")]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=ChannelKind.values), name="channel_kind_known"),
            models.CheckConstraint(
                condition=Q(remind_unit__in=["percent", "minutes"]), name="channel_remind_unit_known"
            ),
        ]

    def __str__(self) -> str:
        return f"channel {self.name}"

    @property
    def is_webhook(self) -> bool:
        return self.kind != ChannelKind.EMAIL

    @property
    def target(self) -> str:
        """Where it goes, without what could be a secret of the address."""
        if not self.is_webhook:
            return self.recipients
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}/…" if parts.path.strip("/") or parts.query else self.url

    @property
    def secret_hint(self) -> str:
        """The secret, masked."""
        return f"{self.secret[:6]}…{self.secret[-4:]}" if self.secret else ""

    @property
    def reminds(self) -> str:
        """When the reminder comes, in words."""
        unit = "%" if self.remind_unit == "percent" else "min"
        return f"{self.remind_at} {unit}"

    def wants(self, notice: str, agent: str, environment: str) -> bool:
        """Is this channel for such a notice?"""
        return (
            notice in self.notices
            and (not self.agents or agent in self.agents)
            and (not self.environments or environment in self.environments)
        )


def new_message_id() -> str:
    """What receivers drop repeats by: `webhook-id` and `Idempotency-Key`."""
    return f"msg_{uuid.uuid4().hex}"


class NotificationDelivery(models.Model):
    """One message to one channel, written in the transaction of the event it tells of."""

    message_id = models.CharField(max_length=40, unique=True, default=new_message_id)
    channel = models.ForeignKey(
        NotificationChannel, null=True, on_delete=models.SET_NULL, related_name="deliveries"
    )
    channel_name = models.CharField(max_length=80)  # stays when the channel is removed
    recipients = models.TextField(blank=True, default="")  # of an e-mail to a person, without a channel
    run = models.ForeignKey(Run, null=True, on_delete=models.CASCADE, related_name="deliveries")
    approval = models.ForeignKey(Approval, null=True, on_delete=models.CASCADE, related_name="deliveries")
    notice = models.CharField(max_length=24, choices=NoticeKind)
    facts = models.TextField()  # JSON: what was true at the event; the body is made of it
    state = models.CharField(max_length=8, choices=DeliveryState, default=DeliveryState.WAITING)
    attempts = models.PositiveIntegerField(default=0)  # begun; also the fence of whoever sends
    most_attempts = models.PositiveIntegerField(default=8)
    # Waiting: when to send. Sending: until then nobody else does; then the sender counts as lost.
    next_at = models.DateTimeField()
    response_status = models.PositiveIntegerField(null=True)
    error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "notification deliveries"
        constraints = [
            models.CheckConstraint(condition=Q(state__in=DeliveryState.values), name="delivery_state_known")
        ]
        indexes = [
            models.Index(  # what the senders look for
                fields=["next_at"], condition=Q(state__in=UNDER_WAY), name="delivery_under_way"
            )
        ]

    def __str__(self) -> str:
        return f"delivery {self.message_id}: {self.state}"

    @property
    def said(self) -> dict[str, Any]:
        """The facts as data."""
        loaded: dict[str, Any] = json.loads(self.facts)
        return loaded

    @property
    def is_under_way(self) -> bool:
        return self.state in UNDER_WAY
