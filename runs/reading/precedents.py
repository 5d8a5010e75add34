"""Earlier decisions on the same tool: what was different then, who decided, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User

from runs.models import Approval, ApprovalState, Run, Step, StepStatus, WhatBecame
from runs.reading.asks import Ask, ask_of, with_votes
from runs.reading.checks import check_of
from runs.reading.differences import Differences, differences

MAX_PRECEDENTS = 5
LIGHT = (
    "run__opening",
    "run__final_response",
    "run__config",
    "step__message",
    "step__reasoning",
    "step__text",
    "step__draft",
    "step__arguments",
    "step__unit_prices",
)


@dataclass(frozen=True)
class End:
    """What became of a call: a status that looks like it, its word, and what there is to say of it."""

    shape: str
    word: str
    text: str = ""


@dataclass(frozen=True)
class Precedent:
    """One earlier decision. `difference`: what is not the same in the call that waits now."""

    ask: Ask
    run: Run
    difference: Differences
    end: End

    @property
    def by(self) -> str:
        """Who took it back, else who voted; empty when nobody did."""
        if self.ask.shown_state == ApprovalState.REVOKED:
            return self.ask.ended_by
        return ", ".join(ballot.voter for ballot in self.ask.ballots)

    @property
    def reason(self) -> str:
        """What whoever took it back said of it, else the last voter."""
        if self.ask.shown_state == ApprovalState.REVOKED:
            return self.ask.ended_why
        last = self.ask.last_ballot
        return last.reason if last else ""


def read_precedents(approval: Approval, *, viewer: User, now: datetime) -> tuple[Precedent, ...]:
    """The last five decisions on this tool before this one, the newest first: two queries."""
    same_tool = Approval.objects.filter(step__name=approval.step.name, decided_at__isnull=False)
    same_tool = same_tool.exclude(state=ApprovalState.SUPERSEDED)
    if approval.decided_at is not None:
        same_tool = same_tool.filter(decided_at__lt=approval.decided_at)
    found = (
        with_votes(same_tool.exclude(step_id=approval.step_id))
        .select_related("run", "step__resolution__by")
        .defer(*LIGHT)
        .order_by("-decided_at", "-pk")[:MAX_PRECEDENTS]
    )
    return tuple(_precedent(earlier, approval.arguments, viewer, now) for earlier in found)


def _precedent(earlier: Approval, arguments: str, viewer: User, now: datetime) -> Precedent:
    step = earlier.step
    return Precedent(
        ask=ask_of(earlier, step_seq=step.seq, tool=step.name, viewer=viewer, now=now),
        run=earlier.run,
        difference=differences(earlier.arguments, arguments),
        end=end_of(earlier),
    )


def end_of(approval: Approval) -> End:
    """What became of the call, in our words; `text` is a tool's or a person's."""
    step = approval.step
    if step.status == StepStatus.UNKNOWN:
        return _unknown(step)
    if approval.redeemed_at is None:
        if approval.state == ApprovalState.APPROVED and step.status == StepStatus.READY:
            return End("pending", "not started yet")
        return End("refused", "did not run")
    if step.status == StepStatus.EXECUTING:
        return End("running", "runs now")
    if step.status == StepStatus.FAILED:
        return End("failed", "failed", step.summary)
    check = check_of(step) if step.status == StepStatus.SUCCEEDED else None
    if check is None:
        return End("succeeded", "ran, not verified", step.summary)
    if check.passed:
        return End("succeeded", "ran, verified", f"{check.observed}, expected {check.expected}")
    return End("failed", "ran, effect not met", f"{check.observed}, expected {check.expected}")


def _unknown(step: Step) -> End:
    said = getattr(step, "resolution", None)
    if said is None:
        return End("unknown", "outcome unknown", "Nobody has found out yet.")
    word = WhatBecame(said.verdict).label.lower()
    return End("unknown", f"unknown, then: {word}", f"says {said.by.get_username()}")
