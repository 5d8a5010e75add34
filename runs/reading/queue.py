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
from runs.reading.checks import Check, check_of
from runs.reading.precedents import Precedent, read_precedents
from runs.reading.revisions import Revisions, read_revisions
from runs.reading.voters import who_can_still_vote

MAX_PENDING = 100
MAX_RESULT = 60_000
SHORTEST_TRACED = 4
COOLING = Q(state=ApprovalState.APPROVED, redeemed_at__isnull=True, step__status=StepStatus.READY)


@dataclass(frozen=True)
class Ticket:
    """One entry of the queue: the question and the run that asks it."""

    ask: Ask
    run: Run
    turn: int | None = None  # key of the turn that proposed the call


@dataclass(frozen=True)
class Group:
    """The calls of one turn that wait, in the order of the model: one decision each."""

    run: Run
    tickets: tuple[Ticket, ...]

    @property
    def is_stack(self) -> bool:
        return len(self.tickets) > 1


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
    check: Check | None  # what was measured after it ran
    siblings: tuple[Ask, ...]  # what the same turn also asks for, in the order of the model
    can_still_vote: tuple[str, ...]  # names, when more than one vote is needed

    @property
    def key(self) -> object:
        """What a live page compares to see whether the card is another one."""
        return (
            self.ask,
            self.ask.is_open,
            self.step_status,
            self.step_summary,
            self.check,
            self.can_still_vote,
            self.revisions,
            tuple((sibling, sibling.is_open) for sibling in self.siblings),
        )

    @property
    def identical(self) -> int:
        """How many of the precedents had exactly these arguments."""
        return sum(precedent.difference.none for precedent in self.precedents)


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


def grouped(tickets: list[Ticket]) -> list[Group]:
    """The same tickets, those of one turn together where the first of them stands."""
    turns: dict[object, list[Ticket]] = {}
    for ticket in tickets:
        turns.setdefault(ticket.turn or -ticket.ask.pk, []).append(ticket)
    return [
        Group(found[0].run, tuple(sorted(found, key=lambda ticket: ticket.ask.step_seq)))
        for found in turns.values()
    ]


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
    ask = _ask(approval, viewer, now)
    return Card(
        ask=ask,
        run=approval.run,
        agents_reason=(turn.text or turn.reasoning) if turn else "",
        from_tools=_first_seen(approval),
        precedents=read_precedents(approval, viewer=viewer, now=now),
        step_status=step.status,
        step_summary=step.summary,
        revisions=read_revisions(approval, viewer=viewer, now=now),
        check=check_of(step) if step.status == StepStatus.SUCCEEDED else None,
        siblings=_siblings(approval, viewer, now),
        can_still_vote=who_can_still_vote(ask) if ask.quorum > 1 else (),
    )


def _siblings(approval: Approval, viewer: User, now: datetime) -> tuple[Ask, ...]:
    """The newest question about each other gated call of the turn."""
    if approval.step.parent_id is None:
        return ()
    others = Approval.objects.filter(step__parent=approval.step.parent_id).exclude(step=approval.step_id)
    newest = {other.step_id: other for other in light_rows(others.order_by("step__seq", "revision"))}
    return tuple(_ask(other, viewer, now) for other in newest.values())


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
            "step__parent",
            "step__name",
            "step__status",
            "step__summary",
        )
    )


def _tickets(approvals: Any, viewer: User, now: datetime) -> list[Ticket]:
    return [
        Ticket(_ask(approval, viewer, now), approval.run, approval.step.parent_id)
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
