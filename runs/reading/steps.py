"""One step in full, for the panel beside the trace."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User

from runs.models import ApprovalState, Event, Run, Step, StepKind, StepStatus
from runs.reading.asks import Ask, ask_of, with_votes
from runs.reading.outcomes import Unknown, read_outcome

MILLION = Decimal(1_000_000)
MAX_EVENTS = 50

CLASSES = (
    ("Input", "input_tokens", "input"),
    ("Cache write, 5 min", "cache_write_5m_tokens", "cache_write_5m"),
    ("Cache write, 1 h", "cache_write_1h_tokens", "cache_write_1h"),
    ("Cache read", "cache_read_tokens", "cache_read"),
    ("Output", "output_tokens", "output"),
)


@dataclass(frozen=True)
class UsageLine:
    """One class of tokens: how many, at what price per million, for how much. None: no price is known."""

    label: str
    tokens: int
    price: Decimal | None
    cost: Decimal | None


@dataclass(frozen=True)
class StepEvent:
    """One event that concerns the step."""

    seq: int
    kind: str
    actor: str
    at: datetime
    note: str


@dataclass(frozen=True)
class Decision:
    """The rule that decided on a call, and what it said."""

    word: str  # allowed, people were asked, denied, or stopped after the rules had changed
    rule: str
    rule_change: int | None  # None: a rule in code
    use: str  # of a grant: "use 2 of 5"
    has_receipt: bool  # it started because people had allowed it beforehand


@dataclass(frozen=True)
class StepDetail:
    """What the panel shows of one step."""

    step: Step
    turn: int | None  # which model turn of the run this is, from 1
    ask: Ask | None
    usage: tuple[UsageLine, ...]
    events: tuple[StepEvent, ...]
    parent_seq: int | None
    unknown: Unknown | None  # what is known of an outcome that nobody knew
    decision: Decision | None = None

    @property
    def is_streaming(self) -> bool:
        return self.step.status == StepStatus.RUNNING

    @property
    def word(self) -> str:
        """The status word, where the usual one says too little."""
        return "Streaming" if self.is_streaming else ""

    @property
    def title(self) -> str:
        kinds = {StepKind.MODEL: "Model turn", StepKind.NOTE: "Note to the model"}
        return kinds.get(StepKind(self.step.kind), self.step.name)

    @property
    def ran_seconds(self) -> float | None:
        """How long the step itself worked, without waiting for people."""
        length = self.step.duration
        return None if length is None else max(0.0, length.total_seconds() - self.step.waited_seconds)


def read_step(run: Run, seq: int, *, viewer: User, now: datetime) -> StepDetail | None:
    """The step of this number in full, or None: at most five queries, ten when its outcome is unknown."""
    step = run.steps.select_related("parent").filter(seq=seq).first()
    if step is None:
        return None
    step.run = run
    approval = (
        with_votes(step.approvals.order_by("-revision")).first() if step.kind == StepKind.TOOL else None
    )
    is_model = step.kind == StepKind.MODEL
    events = _events_of(run, seq)
    return StepDetail(
        step=step,
        turn=run.steps.filter(kind=StepKind.MODEL, seq__lte=seq).count() if is_model else None,
        ask=ask_of(approval, step_seq=seq, tool=step.name, viewer=viewer, now=now) if approval else None,
        usage=_usage(step) if is_model else (),
        events=tuple(StepEvent(one.seq, one.kind, one.actor, one.at, _note(one)) for one in events),
        parent_seq=step.parent.seq if step.parent else None,
        unknown=read_outcome(step.pk) if step.status == StepStatus.UNKNOWN else None,
        decision=_decision(events) if step.kind == StepKind.TOOL else None,
    )


def _usage(step: Step) -> tuple[UsageLine, ...]:
    prices: dict[str, Any] = json.loads(step.unit_prices) if step.unit_prices else {}
    lines = []
    for label, column, price_name in CLASSES:
        count: int = getattr(step, column)
        if not count and column != "input_tokens":
            continue
        price = Decimal(prices[price_name]) if price_name in prices else None
        lines.append(UsageLine(label, count, price, None if price is None else count * price / MILLION))
    return tuple(lines) if step.total_tokens else ()


def _events_of(run: Run, seq: int) -> list[Event]:
    near = run.events.filter(data__contains=f'"step":{seq}')[: 4 * MAX_EVENTS]
    return [event for event in near if event.fields.get("step") == seq][:MAX_EVENTS]


def _decision(events: list[Event]) -> Decision | None:
    """The last event that names the rule which decided on the call."""
    words = {"call.allowed": "Allowed", "approval.asked": "People were asked", "call.refused": "Denied"}
    decided = [event for event in events if event.kind in words and event.fields.get("rule")]
    if not decided:
        return None
    used = next((event.fields for event in events if event.kind == "grant.used"), None)
    started = next((event.fields for event in events if event.kind == "call.started"), {})
    told = decided[-1].fields
    return Decision(
        word="Stopped" if told.get("reason") == ApprovalState.INVALIDATED else words[decided[-1].kind],
        rule=told["rule"],
        rule_change=told.get("rule_change"),
        use=f"use {used['number']} of {used['uses']}" if used else "",
        has_receipt=started.get("source") in {"rule", "grant"},
    )


def _note(event: Event) -> str:
    """The one word of an event that is worth a line."""
    fields = event.fields
    for name in ("verdict", "rule", "reason", "error", "stop_reason", "status"):
        if fields.get(name):
            return str(fields[name]).replace("_", " ")
    return ""
