"""Model turns: the attempt before the call, the draft while it streams, the whole turn at its end."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from decimal import Decimal

from runs import hints
from runs.actions import charges, ledger, rows
from runs.actions.change import HELD_MILLISECONDS, Change, Lease, change, shared_transaction, wait_only
from runs.actions.charges import Charge
from runs.actions.errors import LeaseLost
from runs.models import Step, StepKind, StepStatus
from runs.models.prices_in_force import look, unit_prices
from runs.models.sql import execute
from runs.models.step import newest_part
from runs.money import Usage

DRAFT_LIMIT = 20_000
BYTES_PER_TOKEN = 4  # of a prompt, on average; for an estimate of what a lost attempt sent
CHARACTERS_PER_TOKEN = 3  # of an answer, from below: an estimate errs towards more cost

_SAVE_DRAFT = (
    "UPDATE runs_step SET draft = %s WHERE id = %s AND status = %s AND run_id IN "
    "(SELECT id FROM runs_run WHERE id = %s AND fence = %s AND lease_owner = %s)"
)

# Columns that the end of an attempt sets; then those of an answer, and those of a failure.
ENDED_TURN = (
    *charges.TOKENS,
    "status",
    "ended_at",
    "summary",
    "draft",
    "api_request_id",
    "usage_estimated",
    "cost_usd",
    "unit_prices",
    "price_source",
)
ANSWERED = ("name", "message", "stop_reason", "reasoning", "text")
FAILED = ("error_action", "error_kind", "error", "retry_after_seconds")


@dataclass(frozen=True)
class ProposedCall:
    """A tool call as the model proposed it; `arguments` is exact JSON text."""

    tool_use_id: str
    name: str
    arguments: str
    effect: str
    tool_version: str
    summary: str


@dataclass(frozen=True)
class CompleteTurn:
    """An assistant turn whose stream ended properly; `message` is its exact JSON."""

    message: str
    model: str
    stop_reason: str
    api_request_id: str
    reasoning: str
    text: str
    summary: str
    calls: tuple[ProposedCall, ...]


def start_attempt(
    lease: Lease,
    *,
    model: str,
    attempt: int,
    request_sha256: str,
    max_tokens: int,
    reserved_tokens: int,
    reserved_usd: Decimal | None,
) -> Step:
    """Record that a request goes out now, before it does: a crash leaves its trace and its reservation.

    Raises BudgetUsedUp when a budget that runs share has no room for it any more: the transaction is void.
    """
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = current.insert(
            rows.new(
                Step,
                run=current.run,
                seq=current.next_seq(),
                kind=StepKind.MODEL,
                status=StepStatus.RUNNING,
                name=model,
                attempt=attempt,
                started_at=current.now,
                request_sha256=request_sha256,
                max_tokens=max_tokens,
                reserved_tokens=reserved_tokens,
                reserved_usd=reserved_usd,
            )
        )
        ledger.reserve(current, step)
        current.add(model_calls=1)
        current.event("model.started", step=step.seq, attempt=attempt, request_sha256=request_sha256)
    return step


def save_draft(lease: Lease, step: Step, text: str) -> None:
    """Show what has streamed so far. Display only: it is thrown away when the turn ends.

    Raises LeaseLost when somebody else drives the run: then nobody needs the rest of the stream. One thread
    saves those of all turns: for a row that somebody holds it waits a moment, and raises OperationalError.
    """
    with shared_transaction():
        wait_only(HELD_MILLISECONDS)
        values = [
            newest_part(text, DRAFT_LIMIT),
            step.pk,
            StepStatus.RUNNING,
            lease.run_id,
            lease.fence,
            lease.owner,
        ]
        saved = execute(_SAVE_DRAFT, values).rowcount
        hints.announce(lease.run_id)
    if not saved:
        raise LeaseLost("Another worker drives this run now.")


def finish_turn(lease: Lease, step: Step, turn: CompleteTurn, charge: Charge) -> None:
    """Store the whole assistant turn, its cost and the calls it proposes, in one transaction."""
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = current.step(step.seq)
        step.status = StepStatus.SUCCEEDED
        step.ended_at = current.now
        step.name = turn.model
        step.message = turn.message
        step.stop_reason = turn.stop_reason
        step.api_request_id = turn.api_request_id
        step.reasoning = turn.reasoning
        step.text = turn.text
        step.summary = turn.summary[:300]
        step.draft = ""
        cost = charges.book(current, step, charge)
        current.update(step, [*ENDED_TURN, *ANSWERED])
        ledger.settle_attempt(current, step)
        for call in turn.calls:
            _propose(current, step, call)
        current.event(
            "model.finished",
            step=step.seq,
            stop_reason=turn.stop_reason,
            cost_usd=cost,
            message_sha256=hashlib.sha256(turn.message.encode()).hexdigest(),
            calls=[call.tool_use_id for call in turn.calls],
        )


def fail_attempt(
    lease: Lease,
    step: Step,
    *,
    action: str,
    kind: str,
    sentence: str,
    charge: Charge,
    api_request_id: str = "",
    retry_after_seconds: float | None = None,
) -> None:
    """Record a failed attempt with what it cost; what had streamed is not part of the run."""
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = current.step(step.seq)
        step.retry_after_seconds = retry_after_seconds
        step.api_request_id = api_request_id
        close_attempt(current, step, action=action, kind=kind, sentence=sentence, charge=charge)


def close_attempt(
    current: Change, step: Step, *, action: str, kind: str, sentence: str, charge: Charge
) -> None:
    """Inside a change: this attempt is over without an answer, and this is what it cost."""
    step.status = StepStatus.FAILED
    step.ended_at = current.now
    step.error_action = action
    step.error_kind = kind
    step.error = sentence
    step.summary = sentence[:300]
    step.draft = ""
    cost = charges.book(current, step, charge)
    current.update(step, [*ENDED_TURN, *FAILED])
    ledger.settle_attempt(current, step)
    current.event("model.failed", step=step.seq, error=kind, action=action, cost_usd=cost)


def estimate(step: Step) -> Charge:
    """What an attempt may have cost that ended without a word: its prompt, and what had streamed."""
    draft = Step.objects.values_list("draft", flat=True).get(pk=step.pk)
    usage = Usage(
        input_tokens=max(0, step.reserved_tokens - (step.max_tokens or 0)) // BYTES_PER_TOKEN,
        output_tokens=-(-len(draft) // CHARACTERS_PER_TOKEN),
    )
    look()  # the worker that sent it may have known other prices
    prices = unit_prices(step.name, at=step.started_at, prompt_tokens=usage.prompt_tokens)
    return Charge(usage, prices, estimated=True)


def add_note(lease: Lease, *, name: str, text: str, summary: str) -> None:
    """Append words of ours to the conversation; they are sent with the next request."""
    with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
        step = create_note(current, name=name, text=text, summary=summary)
        current.event("note.added", step=step.seq, name=name)


def create_note(current: Change, *, name: str, text: str, summary: str) -> Step:
    """Inside a change: a note. Without text it is a mark in the history that the model is not sent."""
    blocks = {"role": "user", "content": [{"type": "text", "text": text}]}
    return current.insert(
        rows.new(
            Step,
            run=current.run,
            seq=current.next_seq(),
            kind=StepKind.NOTE,
            status=StepStatus.SUCCEEDED,
            name=name,
            summary=summary[:300],
            text=text,
            message=json.dumps(blocks) if text else "",
            started_at=current.now,
            ended_at=current.now,
        )
    )


def _propose(current: Change, turn: Step, call: ProposedCall) -> None:
    current.add(tool_calls=1)
    current.insert(
        rows.new(
            Step,
            run=current.run,
            seq=current.next_seq(),
            parent=turn,
            kind=StepKind.TOOL,
            status=StepStatus.PROPOSED,
            name=call.name[:128],
            summary=call.summary[:300],
            tool_use_id=call.tool_use_id,
            arguments=call.arguments,
            effect=call.effect,
            tool_version=call.tool_version,
            evidence_id=f"ev_{current.run.earlier_calls + current.run.tool_calls:02d}",
            started_at=current.now,
        )
    )
