"""A step: one thing that happened in a run. A model turn, a tool call, or a note we added."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.functional import cached_property

from runs.models.run import Run

DRAFT_STRIDE = 1_000


def newest_part(text: str, most: int) -> str:
    """The end of a text that grows, at most so many characters.

    Its beginning moves in strides, so that what somebody selects on a page stays where it is meanwhile.
    """
    too_many = max(0, len(text) - most)
    return text[-(-too_many // DRAFT_STRIDE) * DRAFT_STRIDE :]


class StepKind(models.TextChoices):
    MODEL = "model", "Model turn"
    TOOL = "tool", "Tool call"
    NOTE = "note", "Note"


class StepStatus(models.TextChoices):
    RUNNING = "running", "Running"  # a model attempt that is streaming
    PROPOSED = "proposed", "Proposed"
    WAITING = "waiting", "Waiting"
    READY = "ready", "Ready"
    EXECUTING = "executing", "Executing"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    UNKNOWN = "unknown", "Outcome unknown"
    REFUSED = "refused", "Refused"


# A turn that ended otherwise (a refusal, an answer cut off) is not said again to the model.
GOOD_ENDS = frozenset({"end_turn", "stop_sequence", "tool_use", "pause_turn"})
SETTLED = frozenset({StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.UNKNOWN, StepStatus.REFUSED})


class Step(models.Model):
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="steps", db_index=False)
    seq = models.PositiveIntegerField()
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="children"
    )
    kind = models.CharField(max_length=8, choices=StepKind)
    status = models.CharField(max_length=12, choices=StepStatus)
    name = models.CharField(max_length=128)
    summary = models.CharField(max_length=300, blank=True, default="")  # one line, written by us
    attempt = models.PositiveIntegerField(default=1)
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    # The latest START of a call: from here on it may have taken effect.
    begun_at = models.DateTimeField(null=True, blank=True)
    waited_seconds = models.FloatField(default=0)
    # What the failure of a model attempt calls for: retry, pause or fail.
    error_action = models.CharField(max_length=8, blank=True, default="")
    retry_after_seconds = models.FloatField(null=True, blank=True)
    error_kind = models.CharField(max_length=64, blank=True, default="")
    error = models.TextField(blank=True, default="")

    # Model turns. `message` is the exact JSON of the assistant message; its content is replayed.
    # For notes it is the exact JSON of the user message that was appended.
    message = models.TextField(blank=True, default="")
    reasoning = models.TextField(blank=True, default="")
    text = models.TextField(blank=True, default="")
    draft = models.TextField(blank=True, default="")  # display only, while the turn streams
    stop_reason = models.CharField(max_length=64, blank=True, default="")
    request_sha256 = models.CharField(max_length=64, blank=True, default="")
    max_tokens = models.PositiveIntegerField(null=True, blank=True)
    api_request_id = models.CharField(max_length=100, blank=True, default="")

    # Usage by class, in tokens; thinking is part of output.
    input_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_5m_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_1h_tokens = models.PositiveBigIntegerField(default=0)
    cache_read_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    thinking_tokens = models.PositiveBigIntegerField(default=0)
    usage_estimated = models.BooleanField(default=False)
    # USD per million tokens by class, and where they came from, as JSON; empty for an unpriced call.
    unit_prices = models.TextField(blank=True, default="")
    price_source = models.CharField(max_length=100, blank=True, default="")
    cost_usd = models.DecimalField(max_digits=20, decimal_places=10, null=True, blank=True)
    reserved_tokens = models.PositiveBigIntegerField(default=0)
    reserved_usd = models.DecimalField(max_digits=20, decimal_places=10, null=True, blank=True)

    # Tool calls: exact text of what the model sent and of what it was told.
    tool_use_id = models.CharField(max_length=128, blank=True, default="")
    arguments = models.TextField(blank=True, default="")
    result = models.TextField(blank=True, default="")
    is_error = models.BooleanField(default=False)
    effect = models.CharField(max_length=12, blank=True, default="")
    tool_version = models.CharField(max_length=64, blank=True, default="")
    evidence_id = models.CharField(max_length=16, blank=True, default="")
    counted_at = models.DateTimeField(null=True, blank=True)  # its first start: budgets count it then

    class Meta:
        ordering = ["seq"]
        constraints = [
            models.UniqueConstraint(fields=["run", "seq"], name="step_seq_once_per_run"),
            models.UniqueConstraint(
                fields=["run", "tool_use_id"], condition=~Q(tool_use_id=""), name="step_tool_use_once_per_run"
            ),
            models.CheckConstraint(
                condition=Q(cost_usd__isnull=True) | Q(cost_usd__gte=0), name="step_cost_not_negative"
            ),
            models.CheckConstraint(condition=Q(status__in=StepStatus.values), name="step_status_known"),
        ]
        indexes = [
            models.Index(  # the watcher: model turns that stream now, for their drafts
                fields=["run"], condition=Q(status="running"), name="step_streaming"
            ),
            models.Index(  # the lane of unknown outcomes, and its count on every page
                fields=["started_at"], condition=Q(status="unknown"), name="step_unknown"
            ),
            models.Index(  # the page of errors: only what fails is written to it
                fields=["-ended_at"],
                condition=Q(status__in=["failed", "unknown"], ended_at__isnull=False),
                name="step_failures",
            ),
            models.Index(  # the cost report
                fields=["ended_at"], condition=Q(kind="model"), name="step_charges"
            ),
            models.Index(  # budgets that limit tool calls, when one is opened
                fields=["counted_at"], condition=Q(counted_at__isnull=False), name="step_counted_calls"
            ),
        ]

    def __str__(self) -> str:
        return f"step {self.seq} {self.name} {self.status}"

    @cached_property
    def content(self) -> list[dict[str, Any]]:
        """The content blocks of the stored message, as they came in; decoded once."""
        blocks: list[dict[str, Any]] = json.loads(self.message)["content"] if self.message else []
        return blocks

    @property
    def is_replayed(self) -> bool:
        """Whether it is a turn that every later request holds."""
        whole = self.kind == StepKind.MODEL and self.status == StepStatus.SUCCEEDED
        return whole and self.stop_reason in GOOD_ENDS and bool(self.content)

    @property
    def is_settled(self) -> bool:
        return self.status in SETTLED

    @property
    def duration(self) -> timedelta | None:
        return self.ended_at - self.started_at if self.ended_at else None

    @property
    def total_tokens(self) -> int:
        return (
            self.input_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
            + self.cache_read_tokens
            + self.output_tokens
        )

    @property
    def parsed_arguments(self) -> Any:
        """The arguments as data, for display; None before the call is known."""
        return json.loads(self.arguments) if self.arguments else None

    @property
    def envelope(self) -> dict[str, Any] | None:
        """The tool's result envelope as data, for display; None when there is no JSON object."""
        try:
            data = json.loads(self.result)
        except ValueError:
            return None
        return data if isinstance(data, dict) else None
