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


@dataclass(frozen=True)
class _Past:
    """What the first steps of a run come to, all of which are settled."""

    steps: int
    items: tuple[Item, ...]
    size: int
    counted: int
    counted_size: int


def history(run: Run, steps: list[Step]) -> History:
    """Facts of these rows.

    A driver asks for them at each decision and the past does not change: what settled turns come to is kept
    with the first step after them, which is read anew whenever somebody else wrote to the run.
    """
    opening = PROMPT_OVERHEAD + _bytes(run.config) + _bytes(run.opening)
    last = next((n for n in range(len(steps) - 1, -1, -1) if steps[n].kind == StepKind.MODEL), 0)
    past = _past(steps, last, opening)
    now = _joined(past, steps[past.steps :])
    about = now.counted + (now.size - now.counted_size) // BYTES_PER_TOKEN
    return History(now.items, now.size, about, opening)


def _past(steps: list[Step], end: int, opening: int) -> _Past:
    """What the steps before this one come to, as far as it is settled."""
    nothing = _Past(0, (), opening, 0, 0)
    if not end:
        return nothing
    kept: _Past | None = vars(steps[end]).get("_past")
    if kept is not None:
        return kept
    keeper = next((step for step in reversed(steps[:end]) if "_past" in vars(step)), None)
    before: _Past = vars(keeper)["_past"] if keeper else nothing
    new = steps[before.steps : end]
    if not all(step.is_settled for step in new):
        return before
    if keeper:
        del vars(keeper)["_past"]  # one is enough, and it grows with the run
    kept = vars(steps[end])["_past"] = _joined(before, new)
    return kept


def _joined(past: _Past, steps: list[Step]) -> _Past:
    """The past and these steps after it, the first of which begins a turn."""
    calls: dict[int | None, list[Call]] = {}
    items: list[Item] = []
    for step in reversed(steps):  # so that the calls of a turn are known before it
        if step.kind == StepKind.TOOL:
            call = Call(step.seq, step.status, step.effect, step.error_kind)
            calls.setdefault(step.parent_id, []).append(call)
        elif step.kind == StepKind.NOTE:
            items.append(Note(step.seq, step.name, step.summary, has_words=bool(step.message)))
        else:
            items.append(_attempt(step, tuple(reversed(calls.get(step.pk, ())))))
    items.reverse()
    size, counted, counted_size = past.size, past.counted, past.counted_size
    for step in steps:
        size += _bytes(step.message) + _bytes(step.result)
        if step.kind == StepKind.MODEL and step.is_replayed and step.total_tokens:
            counted, counted_size = step.total_tokens, size  # a copied turn was counted in another run
    return _Past(past.steps + len(steps), (*past.items, *items), size, counted, counted_size)


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


def final_answer(steps: list[Step]) -> str:
    """The text of the last complete turn, unless it went on to call tools."""
    turns_made = [s for s in steps if s.kind == StepKind.MODEL and s.status == StepStatus.SUCCEEDED]
    if not turns_made or any(step.parent_id == turns_made[-1].pk for step in steps):
        return ""
    return turns_made[-1].text
