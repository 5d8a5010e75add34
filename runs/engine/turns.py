"""Ask the model for one turn and record what came of it."""

from __future__ import annotations

import json
import logging
from functools import partial
from itertools import takewhile
from typing import Any

from django.db import InterfaceError, OperationalError
from django.utils import timezone

from runs import actions, claude, pool
from runs.actions import CHARACTERS_PER_TOKEN, Charge, CompleteTurn, Lease, ProposedCall
from runs.claude import Draft, Stopped, Turn, TurnFailed, request_body, request_sha256, stream_turn
from runs.engine import decision, model, moves
from runs.engine.acts import Act, Record
from runs.engine.handing_over import readable
from runs.engine.history import messages
from runs.engine.lease_watch import watch
from runs.models import Run, Step, StepKind, StepStatus
from tools import registry
from tools.redaction import visible

TURN_DEADLINE = 600.0  # seconds for one answer, however lively its stream is
SUMMARY_DEADLINE = 120.0
SHORTEST_DEADLINE = 10.0
COUNT_DEADLINE = 30.0
COUNT_MARGIN = 10  # a tenth, and ten tokens
LONGEST_ID = 128
# Failures after which nothing was reported and something may be billed all the same.
MAY_BE_BILLED = frozenset(
    {
        "timeout",
        "stalled",
        "connection_lost",
        "truncated",
        "deadline",
        "invalid_tool_input",
        "malformed_stream",
    }
)
logger = logging.getLogger(__name__)


def begin_turn(lease: Lease, run: Run, steps: list[Step], move: moves.CallModel) -> Act:
    """Record the attempt; the act streams the turn, its record stores the turn or its failure.

    Raises BudgetUsedUp when another run has just taken what a shared budget had left.
    """
    client = model.connection(simulated=run.simulated)
    body = _body(run, steps, move.max_tokens, final=move.final)
    deadline = _deadline(run, final=move.final)
    step = actions.start_attempt(
        lease,
        model=run.frozen["model"],
        attempt=move.attempt,
        request_sha256=request_sha256(body),
        max_tokens=move.max_tokens,
        reserved_tokens=move.reserved_tokens,
        reserved_usd=move.reserved_usd,
    )
    longer = _cut_off_before(steps)

    def act() -> Record:
        try:
            with watch.over(lease) as is_lost:
                turn = stream_turn(
                    client,
                    body,
                    deadline_seconds=deadline,
                    on_draft=partial(_show, lease, step),
                    should_stop=is_lost,
                )
        except Stopped as stopped:
            message = "The run was ended or taken over in the middle of this turn."
            raise actions.LeaseLost(message) from stopped
        except TurnFailed as failure:
            return Record(partial(_record_failure, lease, step, failure))
        return _record_of(lease, step, turn, may_be_longer=longer < decision.MAX_LONGER_ANSWERS)

    return act


def _cut_off_before(steps: list[Step]) -> int:
    """How often in a row the answer was cut off before this attempt."""
    failed = takewhile(lambda step: step.status == StepStatus.FAILED, reversed(steps[:-1]))
    return sum(step.kind == StepKind.MODEL and step.error_kind == "max_tokens" for step in failed)


def _record_of(lease: Lease, step: Step, turn: Turn, *, may_be_longer: bool) -> Record:
    """How this turn is stored.

    A cut-off answer is asked for again with more room; a cut-off call is never run.
    """
    if turn.stop_reason == "max_tokens" and (may_be_longer or turn.tool_uses):
        return Record(partial(_record_cut_off, lease, step, turn))
    if any(len(use.id) > LONGEST_ID for use in turn.tool_uses):
        sentence = "Claude sent a tool call whose id is too long to be stored. It is asked again."
        failure = TurnFailed("retry", "malformed_stream", sentence, usage=turn.usage)
        return Record(partial(_record_failure, lease, step, failure))
    complete, cost = _complete(turn), charge(turn.model, turn.usage, step)
    return Record(partial(actions.finish_turn, lease, step, complete, cost))


def body_to_count(run: Run, steps: list[Step]) -> dict[str, Any]:
    """The next request as `count_tokens` takes it."""
    body = _body(run, steps, 1, final=False)
    return {key: value for key, value in body.items() if key != "max_tokens"}


def count_prompt(lease: Lease, run: Run, body: dict[str, Any]) -> int:
    """The API's own count of the next prompt with a margin, because it is an estimate; in tokens.

    Very large when it cannot be had, so that the bound by bytes stands. Raises LeaseLost.
    """
    client = model.connection(simulated=run.simulated)
    try:
        with watch.over(lease) as is_lost:
            tokens = claude.count_prompt(client, body, deadline_seconds=COUNT_DEADLINE, should_stop=is_lost)
    except Stopped as stopped:
        raise actions.LeaseLost("The run was ended or taken over while its prompt was counted.") from stopped
    except TurnFailed as error:
        logger.info("the prompt of run %s could not be counted: %s", run.pk, error)
        return 10**9
    return tokens + tokens // COUNT_MARGIN + COUNT_MARGIN


def abandon(lease: Lease, step: Step) -> None:
    """The worker of this attempt died: it is over, and what it may have cost is estimated."""
    actions.fail_attempt(
        lease,
        step,
        action="retry",
        kind="worker_lost",
        sentence="The worker process ended in the middle of this turn.",
        charge=actions.estimate(step),
    )


def _body(run: Run, steps: list[Step], max_tokens: int, *, final: bool) -> dict[str, Any]:
    return request_body(
        run.frozen,
        messages(run, readable(steps)),
        max_tokens=max_tokens,
        tool_choice="none" if final else "auto",
    )


def _deadline(run: Run, *, final: bool) -> float:
    """Seconds for this turn: what the run has left, within reason. The summary gets its time anyway."""
    left = run.frozen["limits"]["seconds"] - run.active_seconds(timezone.now())
    return SUMMARY_DEADLINE if final else max(SHORTEST_DEADLINE, min(TURN_DEADLINE, left))


def charge(model_name: str, raw_usage: dict[str, Any], step: Step) -> Charge:
    """What a complete turn costs, at the prices of the time it was asked for."""
    return actions.price(model_name, raw_usage, at=step.started_at)


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


def _record_failure(lease: Lease, step: Step, failure: TurnFailed) -> None:
    """Book what is known of the attempt. Where the API may have worked unseen, the charge is an estimate."""
    received = -(-failure.output_characters // CHARACTERS_PER_TOKEN)
    actions.fail_attempt(
        lease,
        step,
        action=failure.action,
        kind=failure.kind,
        sentence=failure.sentence,
        charge=actions.price(
            step.name,
            failure.usage or {},
            at=step.started_at,
            estimated=bool(failure.usage) or failure.kind in MAY_BE_BILLED,
            output_tokens=received,
        ),
        api_request_id=failure.api_request_id[:100],
        retry_after_seconds=failure.retry_after,
    )


def _complete(turn: Turn) -> CompleteTurn:
    """The turn as it is stored; only a turn that stopped to use tools has calls."""
    uses = turn.tool_uses if turn.stop_reason == "tool_use" else ()
    proposed = []
    for use in uses:
        tool = registry.find(use.name)
        proposed.append(
            ProposedCall(
                tool_use_id=use.id,
                name=visible(use.name),
                arguments=use.arguments,
                effect=tool.effect if tool else "read",
                tool_version=tool.version if tool else "",
                summary=tool.headline(json.loads(use.arguments)) if tool else "",
            )
        )
    return CompleteTurn(
        message=turn.message,
        model=visible(turn.model)[:128],
        stop_reason=visible(turn.stop_reason)[:64],
        api_request_id=visible(turn.api_request_id)[:100],
        reasoning=turn.reasoning,
        text=turn.text,
        summary=_first_line(turn),
        calls=tuple(proposed),
    )


def _first_line(turn: Turn) -> str:
    """What the trace shows of a turn in one line."""
    said = (turn.text or turn.reasoning).strip()
    return said.splitlines()[0] if said else ""


def _show(lease: Lease, step: Step, draft: Draft) -> None:
    """Save what has streamed so far. An answer is not given up because it cannot be shown."""
    try:
        pool.giving_back(actions.save_draft)(lease, step, _shown(draft))
    except (OperationalError, InterfaceError) as error:
        logger.warning("the draft of run %s could not be shown: %s", lease.run_id, error)


def _shown(draft: Draft) -> str:
    """What has streamed so far as one text."""
    parts = [draft.reasoning, draft.text, f"Calling {draft.tool_name} …" if draft.tool_name else ""]
    return visible("\n\n".join(part for part in parts if part))
