"""One step in full, for the panel beside the trace."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Count, F, Subquery

from runs.models import ApprovalState, Charge, Event, Run, Step, StepKind, StepStatus
from runs.reading.asks import Ask, ask_of, with_votes
from runs.reading.failures import fingerprint_of, pattern_of
from runs.reading.outcomes import Unknown, read_outcome
from runs.reading.payloads import Payload, payload, with_beginnings

MILLION = Decimal(1_000_000)
MAX_EVENTS = 50
MAX_COUNTED = 2_000  # steps or events of a run that are looked through for one step
MAX_CHARGES = 50
MOST_OF_NOTE = 300  # characters of what an event says
MAX_ATTEMPTS = 20
PROBES = 200  # events that one query looks at to find a moment among very many
CLOSE = 500  # events that may be looked through in vain
SHOWN_PARTS = ("arguments", "result", "reasoning", "text", "error")

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
    charges: tuple[Charge, ...]  # when there are several
    events: tuple[StepEvent, ...]
    parent_seq: int | None
    unknown: Unknown | None  # what is known of an outcome that nobody knew
    attempts: tuple[int, ...]  # the earlier attempts at the same turn
    payloads: dict[str, Payload]
    decision: Decision | None = None

    @property
    def arguments(self) -> Payload:
        return self.payloads["arguments"]

    @property
    def result(self) -> Payload:
        return self.payloads["result"]

    @property
    def reasoning(self) -> Payload:
        return self.payloads["reasoning"]

    @property
    def text(self) -> Payload:
        return self.payloads["text"]

    @property
    def error(self) -> Payload:
        return self.payloads["error"]

    @property
    def fingerprint(self) -> str:
        """Of its error, as the page of errors groups it; empty for a step that did not fail."""
        if self.step.status not in {StepStatus.FAILED, StepStatus.UNKNOWN}:
            return ""
        pattern = pattern_of(self.error.text)
        return fingerprint_of(self.step.kind, self.step.name, self.step.error_kind, pattern)

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
    """The step of this number in full, or None: at most five queries, ten when its outcome is unknown.

    Of its texts at most as much as a page shows.
    """
    found = run.steps.filter(seq=seq).annotate(parent_seq=F("parent__seq"))
    if seq <= MAX_COUNTED:
        found = found.annotate(turn=_turns_until(run, seq))
    step = with_beginnings(found, SHOWN_PARTS).first()
    if step is None:
        return None
    step.run = run
    approval = (
        with_votes(step.approvals.order_by("-revision")).first() if step.kind == StepKind.TOOL else None
    )
    is_model = step.kind == StepKind.MODEL
    events = _events_of(run, step)
    return StepDetail(
        step=step,
        turn=getattr(step, "turn", None) if is_model else None,
        ask=ask_of(approval, step_seq=seq, tool=step.name, viewer=viewer, now=now) if approval else None,
        usage=_usage(step) if is_model else (),
        charges=_charges(step) if is_model else (),
        events=tuple(StepEvent(one.seq, one.kind, one.actor, one.at, _note(one)) for one in events),
        parent_seq=_parent_seq(step),
        unknown=read_outcome(step.pk) if step.status == StepStatus.UNKNOWN else None,
        decision=_decision(events) if step.kind == StepKind.TOOL else None,
        attempts=_attempts(run, step) if is_model and step.attempt > 1 else (),
        payloads={part: payload(step, part) for part in SHOWN_PARTS},
    )


def _parent_seq(step: Step) -> int | None:
    found: int | None = getattr(step, "parent_seq", None)
    return found


def _turns_until(run: Run, seq: int) -> Subquery:
    """Which turn it is; nobody counts them in a very long run."""
    turns = Step.objects.filter(run=run, kind=StepKind.MODEL, seq__lte=seq).order_by()
    return Subquery(turns.values("run").annotate(turns=Count("pk")).values("turns"))


def _attempts(run: Run, step: Step) -> tuple[int, ...]:
    """The failed attempts right before this one, oldest first."""
    before = run.steps.filter(kind=StepKind.MODEL, status=StepStatus.FAILED, seq__lt=step.seq)
    seqs = before.order_by("-seq").values_list("seq", flat=True)[: min(step.attempt - 1, MAX_ATTEMPTS)]
    return tuple(reversed(seqs))


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


def _charges(step: Step) -> tuple[Charge, ...]:
    """Its entries in the ledger, when there is more to see than the usage says."""
    entries = tuple(step.charges.select_related("price").order_by("number")[:MAX_CHARGES])
    return entries if len(entries) > 1 else ()


def _events_of(run: Run, step: Step) -> list[Event]:
    """The events of this step. Of a very long run only those near its time are looked at."""
    near = run.events.filter(data__contains=f'"step":{step.seq}')
    if run.last_event > MAX_COUNTED:
        begin = _first_since(run, step.started_at - timedelta(seconds=1))
        near = near.filter(seq__range=(begin, begin + CLOSE + MAX_COUNTED))
    return [event for event in near[: 4 * MAX_EVENTS] if event.fields.get("step") == step.seq][:MAX_EVENTS]


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


def _first_since(run: Run, moment: datetime) -> int:
    """The number of an event at most CLOSE before the first one from this moment on.

    They stand in order of time, so it is enough to look at some at even distances: one query for up to
    PROBES times CLOSE events, two for fifty million.
    """
    low, high = 1, run.last_event
    while high - low > CLOSE:
        distance = -(-(high - low) // PROBES)
        probes = run.events.filter(seq__in=range(low, high + 1, distance), at__lt=moment)
        low = probes.order_by("-seq").values_list("seq", flat=True).first() or low
        high = min(high, low + distance)
    return low


def _note(event: Event) -> str:
    """The one word of an event that is worth a line."""
    fields = event.fields
    for name in ("verdict", "rule", "reason", "error", "stop_reason", "status"):
        if fields.get(name):
            return str(fields[name])[:MOST_OF_NOTE].replace("_", " ")
    return ""
