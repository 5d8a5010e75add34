"""One run as one JSON log."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from runs.models import Charge, Run, Step, StepKind, StepStatus
from runs.models.charge import USAGE, standing


def log_text(run: Run, form: str = "full") -> str:
    """The log, in one of FORMS, as JSON text in ASCII: what UTF-8 cannot hold stays as it was, escaped."""
    return json.dumps(FORMS[form](run), indent=2, ensure_ascii=True)


def run_log(run: Run) -> dict[str, Any]:
    """The whole run as JSON-ready data; money is exact decimal text in USD, times are UTC.

    `cost_usd` is the sum of `model_calls[].cost_usd`, and these are sums of their `charges`, entries of the
    ledger. An unpriced call has null there and is counted in `unpriced_calls`, its tokens in
    `unpriced_tokens`; a run without any price has null.
    """
    steps = list(run.steps.order_by("seq"))
    tools = [step for step in steps if step.kind == StepKind.TOOL]
    turns = [step for step in steps if step.kind == StepKind.MODEL]
    charges = _charges_by_step(run)
    return {
        "request_id": str(run.request_id),
        "agent": run.agent,
        "model": run.model,
        "simulated": run.simulated,
        "status": run.status,
        "reason": run.reason,
        "explanation": run.explanation,
        "user_query": run.user_query,
        "claude_reasoning": [
            {"step": step.seq, "reasoning": step.reasoning, "text": step.text}
            for step in turns
            if step.status == StepStatus.SUCCEEDED
        ],
        "tool_calls": [_tool_call(step) for step in tools],
        "tool_results": [_tool_result(step) for step in tools],
        "final_response": run.final_response,
        "total_tokens": run.total_tokens,
        "cost_usd": money(run.shown_cost),
        "unpriced_tokens": _unpriced_tokens(charges),
        "unpriced_calls": run.unpriced_calls,
        "model_calls": [_model_call(step, charges[step.pk]) for step in turns],
        "approvals": _approvals(run),
        "outcomes": _outcomes(run),
        "started_by": run.started_by,
        "parent_run": str(run.parent_run.request_id) if run.parent_run else None,
        "copied_steps": run.copied_steps,
        "created_at": run.created_at.isoformat(),
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
        "waited_seconds": round(run.waited_seconds, 3),
        "events": _events(run),
    }


def seed_log(run: Run) -> dict[str, Any]:
    """The run in the eight fields of a plain agent script: text, lists and numbers.

    `cost_usd` is null when nothing has a price. What the model said on the way is part of its reasoning, and
    its last words are the final response.
    """
    log = run_log(run)
    said = [part for turn in log["claude_reasoning"] for part in (turn["reasoning"], turn["text"])]
    cost = run.shown_cost
    return {
        "request_id": log["request_id"],
        "user_query": log["user_query"],
        "claude_reasoning": "\n\n".join(part for part in said if part and part != run.final_response),
        "tool_calls": log["tool_calls"],
        "tool_results": log["tool_results"],
        "final_response": log["final_response"],
        "total_tokens": log["total_tokens"],
        "cost_usd": None if cost is None else float(cost),
    }


FORMS: dict[str, Callable[[Run], dict[str, Any]]] = {"full": run_log, "seed": seed_log}


def _unpriced_tokens(charges: Mapping[int, list[Charge]]) -> int:
    return sum(
        entry.usage.total_tokens
        for entries in charges.values()
        for entry in standing(entries)
        if entry.is_unpriced
    )


def _events(run: Run) -> list[dict[str, Any]]:
    return [
        {"seq": event.seq, "kind": event.kind, "actor": event.actor, "at": event.at.isoformat()}
        | {"data": event.fields, "hash": event.hash}
        for event in run.events.order_by("seq")
    ]


def money(amount: Decimal | None) -> str | None:
    """Exact decimal text without an exponent or trailing zeros; None for unpriced."""
    if amount is None:
        return None
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _tool_call(step: Step) -> dict[str, Any]:
    return {
        "id": step.tool_use_id,
        "step": step.seq,
        "name": step.name,
        "args": step.parsed_arguments,
        "effect": step.effect,
        "status": step.status,
        "evidence_id": step.evidence_id,
        "started_at": step.started_at.isoformat(),
        "seconds": round(step.duration.total_seconds() - step.waited_seconds, 3) if step.duration else None,
        "waited_seconds": round(step.waited_seconds, 3),
    }


def _tool_result(step: Step) -> dict[str, Any]:
    content: Any = step.envelope
    if content is None:
        content = step.result or None
    return {
        "tool_use_id": step.tool_use_id,
        "name": step.name,
        "is_error": step.is_error,
        "content": content,
    }


def _charges_by_step(run: Run) -> defaultdict[int, list[Charge]]:
    charges: defaultdict[int, list[Charge]] = defaultdict(list)
    for entry in run.charges.select_related("price").order_by("step_id", "number"):
        charges[entry.step_id].append(entry)
    return charges


def _model_call(step: Step, entries: list[Charge]) -> dict[str, Any]:
    return {
        "step": step.seq,
        "model": step.name,
        "attempt": step.attempt,
        "status": step.status,
        "stop_reason": step.stop_reason,
        "error": step.error,
        "usage": {
            "input_tokens": step.input_tokens,
            "cache_write_5m_tokens": step.cache_write_5m_tokens,
            "cache_write_1h_tokens": step.cache_write_1h_tokens,
            "cache_read_tokens": step.cache_read_tokens,
            "output_tokens": step.output_tokens,
            "thinking_tokens": step.thinking_tokens,
            "estimated": step.usage_estimated,
        },
        "usd_per_million_tokens": json.loads(step.unit_prices) if step.unit_prices else None,
        "price_source": step.price_source,
        "cost_usd": money(step.cost_usd),
        "charges": [_charge(entry) for entry in entries],
        "request_sha256": step.request_sha256,
        "api_request_id": step.api_request_id,
    }


def _charge(entry: Charge) -> dict[str, Any]:
    """One entry of the ledger: a reversal takes back an earlier one, and is negative."""
    prices = None if entry.price is None else entry.price.units
    return {
        "number": entry.number,
        "entry": entry.get_entry_display().lower(),
        "takes_back": entry.takes_back,
        "booked_at": entry.booked_at.isoformat(),
        "model": entry.model,
        "context": entry.context,
        "usage": {name: getattr(entry, name) for name in USAGE},
        "usd_per_million_tokens": None if prices is None else json.loads(prices.as_json()),
        "price_source": "unpriced" if prices is None else prices.source,
        "cost_usd": money(entry.cost_usd),
    }


def _outcomes(run: Run) -> list[dict[str, Any]]:
    """What was found out about calls whose outcome was not known at first."""
    found = [
        {
            "step": finding.step.seq,
            "attempt": finding.attempt,
            "found_by": finding.found_by,
            "says": finding.says,
            "evidence": finding.evidence,
            "at": finding.at.isoformat(),
        }
        for finding in run.findings.select_related("step")
    ]
    said = [
        {
            "step": resolution.step.seq,
            "found_by": resolution.by.get_username(),
            "says": resolution.verdict,
            "evidence": resolution.evidence,
            "at": resolution.at.isoformat(),
        }
        for resolution in run.resolutions.select_related("step", "by")
    ]
    return found + said


def _approvals(run: Run) -> list[dict[str, Any]]:
    approvals = (
        run.approvals.select_related("step", "edited_by").prefetch_related("votes__voter").order_by("id")
    )
    return [
        {
            "step": approval.step.seq,
            "tool_use_id": approval.step.tool_use_id,
            "revision": approval.revision,
            "origin": approval.origin,
            "edited_by": approval.edited_by.get_username() if approval.edited_by else None,
            "differences": approval.changed,
            "state": approval.state,
            "ended_by": approval.ended_by,
            "ended_why": approval.ended_why,
            "digest": approval.digest,
            "arguments": approval.arguments,
            "rule": approval.rule,
            "votes": [
                {
                    "voter": vote.voter.get_username(),
                    "verdict": vote.verdict,
                    "reason": vote.reason,
                    "at": vote.at.isoformat(),
                }
                for vote in approval.votes.all()
            ],
        }
        for approval in approvals
    ]
