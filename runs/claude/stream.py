"""One streamed model turn over the SDK: received completely, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import anthropic

from runs.claude.errors import Stopped, TurnFailed, from_exception, unreadable
from runs.claude.progress import Progress, is_countable, joined
from runs.claude.turn import Draft, ToolUse, Turn
from runs.claude.watching import OutOfTime, StopAsked, Watched, watcher

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

    This thread reads. `on_draft` gets a growing snapshot at most eight times a second, and `should_stop` is
    asked at most four times a second, also while nothing arrives: each on a thread that does so for all turns
    of the process. What they raise is raised here unchanged and abandons the turn.
    Raises TurnFailed when the turn was not received in full within `deadline_seconds`, Stopped when
    `should_stop` said so. Nothing of an incomplete turn is returned.
    """
    progress = Progress()
    turn = Watched(progress, deadline_seconds=deadline_seconds, on_draft=on_draft, should_stop=should_stop)
    # A copy of the client costs more than reading a short answer: only one that retries needs it.
    client = client if client.max_retries == 0 else client.with_options(max_retries=0)
    with watcher.over(turn):
        message, error = _read(client, request, progress)
    try:
        _raise_interruption(turn.interruption.error, progress)
        return _finished(message, error, progress)
    except TurnFailed as failure:
        failure.usage = progress.usage
        failure.output_characters = progress.output_characters
        failure.api_request_id = failure.api_request_id or progress.api_request_id
        raise


def count_prompt(
    client: anthropic.Anthropic,
    request: Mapping[str, Any],
    *,
    deadline_seconds: float,
    should_stop: Callable[[], bool],
) -> int:
    """Tokens of this request by the API's own count, which is an estimate.

    Raises as `stream_turn` does, and what `should_stop` raises.
    """
    turn = Watched(
        Progress(),
        deadline_seconds=deadline_seconds,
        on_draft=lambda draft: None,
        should_stop=should_stop,
    )
    client = client if client.max_retries == 0 else client.with_options(max_retries=0)
    tokens: Any = None
    error = None
    with watcher.over(turn):
        try:
            tokens = client.messages.count_tokens(**request).input_tokens
        except Exception as caught:
            error = caught
    _raise_interruption(turn.interruption.error, Progress())
    if error is not None:
        raise from_exception(error) from error
    if not is_countable({"input_tokens": tokens}) or tokens is None:
        raise unreadable()
    return int(tokens)


def _read(
    client: anthropic.Anthropic, request: Mapping[str, Any], progress: Progress
) -> tuple[Any, Exception | None]:
    """The message as far as it came, None when none was started, and what ended it before its time."""
    stream: Any = None
    error = None
    try:
        with client.messages.stream(**request) as stream:
            progress.api_request_id = stream.request_id or ""
            progress.begun = True
            for event in stream:
                progress.take(event)
    except Exception as caught:
        error = caught
    return _snapshot(stream), error


def _snapshot(stream: Any) -> Any:
    try:
        return stream.current_message_snapshot if stream is not None else None
    except AssertionError:  # the SDK's way to say that no message was started
        return None


def _raise_interruption(error: BaseException | None, progress: Progress) -> None:
    if isinstance(error, StopAsked):
        raise Stopped(
            usage=progress.usage,
            output_characters=progress.output_characters,
            api_request_id=progress.api_request_id,
        )
    if isinstance(error, OutOfTime):
        sentence = "Claude took longer than a turn may take. The request is sent again."
        raise TurnFailed("retry", "deadline", sentence)
    if error is not None:
        raise error


def _finished(message: Any, error: Exception | None, progress: Progress) -> Turn:
    if error is not None:
        raise _failure(error, progress) from error
    if message is None or not progress.stopped or message.stop_reason is None:
        raise TurnFailed(
            "retry", "truncated", "Claude's answer broke off before its end. The request is sent again."
        )
    try:
        turn = _turn(message, progress)
    except Exception as odd:  # what is missing or of another kind, or what JSON cannot hold
        raise unreadable() from odd
    if turn.stop_reason in _WHOLE and not progress.inputs_are_whole():
        raise _invalid_input()
    return turn


def _turn(message: Any, progress: Progress) -> Turn:
    # Exclude-unset is what came in; pydantic warns about block types that the SDK does not know yet.
    content = message.to_dict(mode="json", warnings=False)
    usage = progress.usage  # the SDK's own sum keeps only some fields of a message_delta
    if usage is None:
        raise ValueError("usage that cannot be counted")
    return Turn(
        message=_exact(content),
        stop_reason=_text(message.stop_reason),
        stop_details=content.get("stop_details"),
        usage=usage,
        model=_text(message.model),
        api_request_id=progress.api_request_id,
        reasoning=_joined(content, "thinking"),
        text=_joined(content, "text"),
        tool_uses=tuple(
            ToolUse(_text(block["id"]), _text(block["name"]), _exact(_object(block["input"])))
            for block in content["content"]
            if block["type"] == "tool_use"
        ),
    )


def _failure(error: BaseException, progress: Progress) -> TurnFailed:
    if isinstance(error, ValueError) and progress.in_tool_input:
        return _invalid_input()
    if progress.begun and isinstance(error, TypeError):  # of its answer, not of our request
        return unreadable()
    return from_exception(error)


def _invalid_input() -> TurnFailed:
    return TurnFailed(
        "retry",
        "invalid_tool_input",
        "Claude wrote a tool call that is not valid JSON. It is asked again.",
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text where there must be one")
    return value


def _object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise TypeError("no object where there must be one")
    return value


def _exact(value: Any) -> str:
    # ASCII only: an escaped NUL or lone surrogate survives every database, a raw one does not.
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _joined(message: Mapping[str, Any], kind: str) -> str:
    return joined(block.get(kind) or "" for block in message["content"] if block["type"] == kind)
