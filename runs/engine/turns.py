"""Ask the model for one turn and record what came of it."""

from __future__ import annotations

import json
import time
from typing import Any

from runs import actions
from runs.actions import Charge, CompleteTurn, Lease, ProposedCall
from runs.claude import Draft, Turn, TurnFailed, request_body, request_sha256, stream_turn
from runs.engine import model, moves
from runs.engine.history import history, messages
from runs.engine.limits import BYTES_PER_TOKEN
from runs.models import Run, Step
from runs.money import Usage, unit_prices, usage_from_api
from tools import registry

TURN_DEADLINE = 600.0  # seconds for one answer, however lively its stream is
DRAFT_EVERY = 0.25  # seconds between two saved drafts
CHARACTERS_PER_TOKEN = 3  # of an answer, from below: an estimate errs towards more cost


def call_model(lease: Lease, run: Run, steps: list[Step], move: moves.CallModel) -> None:
    """Record the attempt, stream the turn, record the turn or its failure."""
    configuration = run.frozen
    client = model.connection(simulated=run.simulated)
    body = request_body(
        configuration,
        messages(run, steps),
        max_tokens=move.max_tokens,
        tool_choice="none" if move.final else "auto",
    )
    step = actions.start_attempt(
        lease,
        model=configuration["model"],
        attempt=move.attempt,
        request_sha256=request_sha256(body),
        max_tokens=move.max_tokens,
        reserved=move.reserved_usd,
    )
    drafts = _Drafts(lease, step)
    try:
        turn = stream_turn(
            client, body, deadline_seconds=TURN_DEADLINE, on_draft=drafts.show, should_stop=lambda: False
        )
    except TurnFailed as failure:
        _record_failure(lease, run, step, failure)
        return
    if turn.stop_reason == "max_tokens" and _may_ask_for_more(run, steps, turn):
        _record_cut_off(lease, step, turn)
        return
    actions.finish_turn(lease, step, _complete(run, turn), charge(turn.model, turn.usage, step))


def abandon(lease: Lease, run: Run, step: Step, prompt_bytes: int) -> None:
    """The worker of this attempt died: it is over, and what it may have cost is estimated."""
    draft = Step.objects.values_list("draft", flat=True).get(pk=step.pk)
    usage = Usage(
        input_tokens=prompt_bytes // (2 * BYTES_PER_TOKEN),
        output_tokens=-(-len(draft) // CHARACTERS_PER_TOKEN),
    )
    prices = unit_prices(step.name, at=step.started_at, prompt_tokens=usage.prompt_tokens)
    actions.fail_attempt(
        lease,
        step,
        action="retry",
        kind="worker_lost",
        sentence="The worker process ended in the middle of this turn.",
        charge=Charge(usage, prices, estimated=True),
    )


def charge(model_name: str, raw_usage: dict[str, Any], step: Step) -> Charge:
    """What a complete turn costs, at the prices of the time it was asked for."""
    usage = usage_from_api(raw_usage)
    prices = unit_prices(
        model_name, at=step.started_at, prompt_tokens=usage.prompt_tokens, raw_usage=raw_usage
    )
    return Charge(usage, prices)


def _may_ask_for_more(run: Run, steps: list[Step], turn: Turn) -> bool:
    """A cut-off answer is asked for again with more room; a cut-off call is never run."""
    asked = moves.cut_off_answers(history(run, steps))
    return asked < moves.MAX_LONGER_ANSWERS or bool(turn.tool_uses)


def _record_cut_off(lease: Lease, step: Step, turn: Turn) -> None:
    actions.fail_attempt(
        lease,
        step,
        action="retry",
        kind="max_tokens",
        sentence=f"The answer was cut off at {step.max_tokens:,} tokens.",
        charge=charge(turn.model, turn.usage, step),
        api_request_id=turn.api_request_id,
    )


def _record_failure(lease: Lease, run: Run, step: Step, failure: TurnFailed) -> None:
    raw_usage = failure.usage or {}
    known = usage_from_api(raw_usage)
    if not failure.usage:
        booked = Charge(Usage(), unit_prices(step.name, at=step.started_at))
    else:
        received = -(-failure.output_characters // CHARACTERS_PER_TOKEN)
        usage = Usage(
            input_tokens=known.input_tokens,
            cache_write_5m_tokens=known.cache_write_5m_tokens,
            cache_write_1h_tokens=known.cache_write_1h_tokens,
            cache_read_tokens=known.cache_read_tokens,
            output_tokens=max(known.output_tokens, received),
        )
        prices = unit_prices(
            step.name, at=step.started_at, prompt_tokens=usage.prompt_tokens, raw_usage=raw_usage
        )
        booked = Charge(usage, prices, estimated=True)
    actions.fail_attempt(
        lease,
        step,
        action=failure.action,
        kind=failure.kind,
        sentence=failure.sentence,
        charge=booked,
        api_request_id=failure.api_request_id,
        retry_after_seconds=failure.retry_after,
    )


def _complete(run: Run, turn: Turn) -> CompleteTurn:
    """The turn as it is stored; only a turn that stopped to use tools has calls."""
    uses = turn.tool_uses if turn.stop_reason == "tool_use" else ()
    proposed = []
    for use in uses:
        tool = registry.find(use.name)
        proposed.append(
            ProposedCall(
                tool_use_id=use.id,
                name=use.name,
                arguments=use.arguments,
                effect=tool.effect if tool else "read",
                tool_version=tool.version if tool else "",
                summary=tool.headline(json.loads(use.arguments)) if tool else "",
            )
        )
    return CompleteTurn(
        message=turn.message,
        model=turn.model,
        stop_reason=turn.stop_reason,
        api_request_id=turn.api_request_id,
        reasoning=turn.reasoning,
        text=turn.text,
        summary=_first_line(turn),
        calls=tuple(proposed),
    )


def _first_line(turn: Turn) -> str:
    """What the trace shows of a turn in one line."""
    said = (turn.text or turn.reasoning).strip()
    return said.splitlines()[0] if said else ""


class _Drafts:
    """Saves what has streamed so far, a few times a second."""

    def __init__(self, lease: Lease, step: Step) -> None:
        self._lease = lease
        self._step = step
        self._saved_at = 0.0

    def show(self, draft: Draft) -> None:
        """Called by the stream with everything received so far."""
        now = time.monotonic()
        if now - self._saved_at < DRAFT_EVERY:
            return
        self._saved_at = now
        parts = [draft.reasoning, draft.text, f"Calling {draft.tool_name} …" if draft.tool_name else ""]
        actions.save_draft(self._lease, self._step, "\n\n".join(part for part in parts if part))
