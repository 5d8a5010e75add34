"""The approval queue: what waits, one card in full, what was decided."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Count, Q

from runs.models import Approval, ApprovalState, Run, Step, StepKind, StepStatus
from runs.reading.asks import Ask, ask_of, with_votes
from runs.reading.revisions import Revisions, read_revisions

MAX_PENDING = 100
MAX_PRECEDENTS = 5
MAX_RESULT = 60_000
SHORTEST_TRACED = 4
COOLING = Q(state=ApprovalState.APPROVED, redeemed_at__isnull=True, step__status=StepStatus.READY)


@dataclass(frozen=True)
class Ticket:
    """One entry of the queue: the question and the run that asks it."""

    ask: Ask
    run: Run


@dataclass(frozen=True)
class Precedent:
    """An earlier decision on the same tool and how it ended."""

    ask: Ask
    run: Run
    ended: str


@dataclass(frozen=True)
class Card:
    """One approval in full."""

    ask: Ask
    run: Run
    agents_reason: str  # untrusted: the text or reasoning of the turn that proposed the call
    from_tools: dict[str, str]  # argument strings first seen in a tool result, and where
    precedents: tuple[Precedent, ...]
    step_status: str
    step_summary: str
    revisions: Revisions


def count_pending(now: datetime) -> int:
    """How many calls wait for a person."""
    return Approval.objects.filter(state=ApprovalState.PENDING, expires_at__gt=now)[:MAX_PENDING].count()


def pending_pks(now: datetime) -> list[int]:
    """Ids of the approvals that wait, nearest deadline first."""
    pending = Approval.objects.filter(state=ApprovalState.PENDING, expires_at__gt=now)
    return list(pending.order_by("expires_at", "id").values_list("pk", flat=True)[:MAX_PENDING])


def read_queue(*, viewer: User, now: datetime) -> list[Ticket]:
    """What waits, nearest deadline first, and what is about to start and can be undone: two queries."""
    pending = Q(state=ApprovalState.PENDING, expires_at__gt=now)
    found = Approval.objects.filter(pending | (COOLING & Q(not_before__gt=now)))
    return _tickets(found.order_by("expires_at", "id")[:MAX_PENDING], viewer, now)


def read_tickets(pks: list[int], *, viewer: User, now: datetime) -> list[Ticket]:
    """These approvals in the order of their deadlines, decided or not: two queries."""
    return _tickets(Approval.objects.filter(pk__in=pks).order_by("expires_at", "id"), viewer, now)


def decided_counts(since: datetime) -> dict[str, int]:
    """How many approvals ended in each state since then."""
    rows = (
        Approval.objects.filter(decided_at__gte=since).order_by().values_list("state").annotate(n=Count("pk"))
    )
    return dict(rows)


def read_card(pk: int, *, viewer: User, now: datetime) -> Card | None:
    """One approval in full, decided or not, or None."""
    approval = (
        with_votes(Approval.objects.filter(pk=pk))
        .select_related("run__created_by", "step__parent")
        .defer("run__final_response", "step__result", "step__message", "step__parent__message")
        .first()
    )
    if approval is None:
        return None
    step = approval.step
    turn = step.parent
    decided = Approval.objects.filter(step__name=step.name, decided_at__isnull=False)
    same_tool = decided.exclude(step=step).exclude(state=ApprovalState.SUPERSEDED)
    return Card(
        ask=_ask(approval, viewer, now),
        run=approval.run,
        agents_reason=(turn.text or turn.reasoning) if turn else "",
        from_tools=_first_seen(approval),
        precedents=tuple(_precedents(same_tool.order_by("-decided_at")[:MAX_PRECEDENTS], viewer, now)),
        step_status=step.status,
        step_summary=step.summary,
        revisions=read_revisions(approval, viewer=viewer, now=now),
    )


def _ask(approval: Approval, viewer: User, now: datetime) -> Ask:
    return ask_of(approval, step_seq=approval.step.seq, tool=approval.step.name, viewer=viewer, now=now)


def light_rows(approvals: Any) -> Any:
    """The same approvals with run, step and votes, but without their long texts: two queries."""
    return (
        with_votes(approvals)
        .select_related("run", "step")
        .only(
            *(field.attname for field in Approval._meta.concrete_fields),
            "run__request_id",
            "run__agent",
            "run__created_by",
            "run__user_query",
            "run__status",
            "step__seq",
            "step__name",
            "step__status",
            "step__summary",
        )
    )


def _tickets(approvals: Any, viewer: User, now: datetime) -> list[Ticket]:
    return [Ticket(_ask(approval, viewer, now), approval.run) for approval in light_rows(approvals)]


def _precedents(approvals: Any, viewer: User, now: datetime) -> list[Precedent]:
    return [
        Precedent(_ask(approval, viewer, now), approval.run, how_it_ended(approval))
        for approval in light_rows(approvals)
    ]


def how_it_ended(approval: Approval) -> str:
    """What became of the call, in our words: the result's summary once it ran."""
    if approval.state == ApprovalState.APPROVED:
        return approval.step.summary if approval.redeemed_at else "approved, not started"
    if approval.state == ApprovalState.SUPERSEDED:
        return f"changed by {approval.ended_by}, asked again"
    if approval.state == ApprovalState.REVOKED:
        return f"taken back by {approval.ended_by}, did not run"
    return "did not run"


def _first_seen(approval: Approval) -> dict[str, str]:
    """For each string of the arguments, the earlier tool result it was first seen in.

    A plain text match. It shows a reviewer which bytes came from data that strangers can write to.
    """
    wanted = {text for text in _strings(json.loads(approval.arguments)) if len(text) >= SHORTEST_TRACED}
    seen: dict[str, str] = {}
    earlier = Step.objects.filter(
        run_id=approval.run_id, kind=StepKind.TOOL, seq__lt=approval.step.seq, result__gt=""
    )
    for seq, name, result in earlier.order_by("seq").values_list("seq", "name", "result"):
        for text in wanted - seen.keys():
            if text in result[:MAX_RESULT]:
                seen[text] = f"First seen in step {seq}, {name}"
    question = approval.run.user_query
    return {text: where for text, where in seen.items() if text not in question}


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for child in value.values() for text in _strings(child)]
    if isinstance(value, list):
        return [text for child in value for text in _strings(child)]
    return []
