"""One streamed model turn over the SDK: received completely, or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import anthropic

from runs.claude.errors import Stopped, TurnFailed, from_exception
from runs.claude.progress import Progress, joined
from runs.claude.reader import Ended, Reader
from runs.claude.turn import Draft, ToolUse, Turn

_POLL_SECONDS = 0.25  # how soon a stop request is noticed while nothing arrives
_DRAFT_SECONDS = 0.125  # at most eight drafts a second
# With these a call is meant to run, or the turn to be replayed. With any other (an output limit, a
# refusal) an unfinished last call is expected and nothing of it runs.
_WHOLE = frozenset({"tool_use", "end_turn", "pause_turn"})


def stream_turn(
    client: anthropic.Anthropic,
    request: Mapping[str, Any],
    *,
    deadline_seconds: float,
    on_draft: Callable[[Draft], None],
    should_stop: Callable[[], bool],
) -> Turn:
    """Send `request` (from `request_body`) and return the complete turn.

    `on_draft` gets a growing snapshot at most eight times a second; `should_stop` is asked at most four
    times a second, also while nothing arrives. Both are called on the caller's thread; what they raise
    passes through unchanged and abandons the turn.
    Raises TurnFailed when the turn was not received in full within `deadline_seconds`, Stopped when
    `should_stop` said so. Nothing of an incomplete turn is returned.
    """
    progress = Progress()
    reader = Reader(client, request)
    try:
        ended = _follow(reader, progress, time.monotonic() + deadline_seconds, on_draft, should_stop)
        progress.api_request_id = reader.request_id
        return _finished(ended, progress)
    except TurnFailed as failure:
        failure.usage = progress.usage
        failure.output_characters = progress.output_characters
        failure.api_request_id = failure.api_request_id or reader.request_id
        raise
    finally:
        reader.abandon()


def _follow(
    reader: Reader,
    progress: Progress,
    deadline: float,
    on_draft: Callable[[Draft], None],
    should_stop: Callable[[], bool],
) -> Ended:
    """Take events until the reader ends, keeping the caller informed and the deadline."""
    now = time.monotonic()
    next_draft = now + _DRAFT_SECONDS  # a turn that ends sooner needs neither
    next_question = now + _POLL_SECONDS
    shown = Draft("", "", "")
    while True:
        now = time.monotonic()
        if now >= deadline:
            raise TurnFailed(
                "retry",
                "deadline",
                "Claude took longer than a turn may take. The request is sent again.",
            )
        if now >= next_question:
            next_question = now + _POLL_SECONDS
            if should_stop():
                raise Stopped(
                    usage=progress.usage,
                    output_characters=progress.output_characters,
                    api_request_id=reader.request_id,
                )
        if now >= next_draft and progress.draft != shown:
            next_draft = now + _DRAFT_SECONDS
            shown = progress.draft
            on_draft(shown)
        for event in reader.events(min(deadline - now, _DRAFT_SECONDS)):
            if isinstance(event, Ended):
                return event
            progress.take(event)


def _finished(ended: Ended, progress: Progress) -> Turn:
    if ended.error is not None:
        raise _failure(ended.error, progress) from ended.error
    message = ended.message
    if message is None or not progress.stopped or message.stop_reason is None:
        raise TurnFailed(
            "retry", "truncated", "Claude's answer broke off before its end. The request is sent again."
        )
    if message.stop_reason in _WHOLE and not progress.inputs_are_whole():
        raise _invalid_input()
    try:
        return _turn(message, progress.api_request_id)
    except ValueError as error:  # characters or numbers that JSON cannot hold
        raise from_exception(error) from error


def _turn(message: Any, api_request_id: str) -> Turn:
    # Exclude-unset is what came in; pydantic warns about block types that the SDK does not know yet.
    content = message.to_dict(mode="json", warnings=False)
    return Turn(
        message=_exact(content),
        stop_reason=message.stop_reason,
        stop_details=content.get("stop_details"),
        usage=content["usage"],
        model=message.model,
        api_request_id=api_request_id,
        reasoning=_joined(content, "thinking"),
        text=_joined(content, "text"),
        tool_uses=tuple(
            ToolUse(block["id"], block["name"], _exact(block["input"]))
            for block in content["content"]
            if block["type"] == "tool_use"
        ),
    )


def _failure(error: BaseException, progress: Progress) -> TurnFailed:
    if isinstance(error, ValueError) and progress.in_tool_input:
        return _invalid_input()
    return from_exception(error)


def _invalid_input() -> TurnFailed:
    return TurnFailed(
        "retry",
        "invalid_tool_input",
        "Claude wrote a tool call that is not valid JSON. It is asked again.",
    )


def _exact(value: Any) -> str:
    # ASCII only: an escaped NUL or lone surrogate survives every database, a raw one does not.
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _joined(message: Mapping[str, Any], kind: str) -> str:
    return joined(block.get(kind) or "" for block in message["content"] if block["type"] == kind)
