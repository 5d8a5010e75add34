"""The rows of a run as plain facts: what `moves` decides on and what requests are built from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runs.models import Run, Step, StepKind, StepStatus


@dataclass(frozen=True)
class Call:
    """A tool call of a turn."""

    seq: int
    status: str
    effect: str
    error_kind: str = ""


@dataclass(frozen=True)
class Attempt:
    """A model turn, or an attempt at one."""

    seq: int
    status: str
    stop_reason: str = ""
    is_empty: bool = False
    error_action: str = ""
    error_kind: str = ""
    error: str = ""
    retry_after_seconds: float | None = None
    ended_at: datetime | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Note:
    """Words of ours in the conversation, or without words a mark that the model is not sent."""

    seq: int
    name: str
    summary: str = ""
    has_words: bool = True


Item = Attempt | Note

# Tokens that the API adds to a request with tools, and what stands around our texts, from above.
PROMPT_OVERHEAD = 1_500
BYTES_PER_TOKEN = 2  # of results that the API did not count yet, from below: numbers and ids are dense


@dataclass(frozen=True)
class History:
    """All that happened in a run, in order.

    `prompt_tokens` is the most the next request can hold: a token is at least one byte. `context_tokens` is
    about what it holds: what the API counted for the last turn, and an estimate of what came since.
    `opening_tokens` is the most that the first request can hold.
    """

    items: tuple[Item, ...]
    prompt_tokens: int
    context_tokens: int = 0
    opening_tokens: int = 0


def history(run: Run, steps: list[Step]) -> History:
    """Facts of these rows."""
    calls: dict[int | None, list[Call]] = {}
    for step in steps:
        if step.kind == StepKind.TOOL:
            call = Call(step.seq, step.status, step.effect, step.error_kind)
            calls.setdefault(step.parent_id, []).append(call)
    items: list[Item] = []
    opening = size = PROMPT_OVERHEAD + _bytes(run.config) + _bytes(run.opening)
    counted, counted_size = 0, 0
    for step in steps:
        if step.kind == StepKind.NOTE:
            items.append(Note(step.seq, step.name, step.summary, has_words=bool(step.message)))
        elif step.kind == StepKind.MODEL:
            items.append(_attempt(step, tuple(calls.get(step.pk, ()))))
        size += _bytes(step.message) + _bytes(step.result)
        if step.is_replayed and step.total_tokens:  # a copied turn was counted in another run
            counted, counted_size = step.total_tokens, size
    about = counted + (size - counted_size) // BYTES_PER_TOKEN
    return History(tuple(items), size, about, opening)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _attempt(step: Step, calls: tuple[Call, ...]) -> Attempt:
    return Attempt(
        seq=step.seq,
        status=step.status,
        stop_reason=step.stop_reason,
        is_empty=step.status == StepStatus.SUCCEEDED and not step.content,
        error_action=step.error_action,
        error_kind=step.error_kind,
        error=step.error,
        retry_after_seconds=step.retry_after_seconds,
        ended_at=step.ended_at,
        calls=calls,
    )


def messages(run: Run, steps: list[Step]) -> list[dict[str, Any]]:
    """The conversation as the API wants it, rebuilt from rows: the same rows give the same bytes.

    Assistant content is replayed exactly as it came in. All results of a turn stand in one user
    message, in the order of the calls, and notes follow them.
    """
    results: dict[int | None, list[dict[str, Any]]] = {}
    for step in steps:
        if step.kind == StepKind.TOOL:
            results.setdefault(step.parent_id, []).append(_tool_result(step))
    conversation: list[dict[str, Any]] = [json.loads(run.opening)]
    for step in steps:
        if step.kind == StepKind.NOTE:
            _say(conversation, step.content)
        elif step.is_replayed:
            conversation.append({"role": "assistant", "content": step.content})
            _say(conversation, results.get(step.pk, []))
    return conversation


def _tool_result(step: Step) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": step.tool_use_id, "content": step.result}
    return block | {"is_error": True} if step.is_error else block


def _say(conversation: list[dict[str, Any]], blocks: list[dict[str, Any]]) -> None:
    """Add blocks to the user's side: messages of one role in a row are one message."""
    if not blocks:
        return
    if conversation[-1]["role"] == "user":
        conversation[-1] = {"role": "user", "content": [*conversation[-1]["content"], *blocks]}
    else:
        conversation.append({"role": "user", "content": list(blocks)})
