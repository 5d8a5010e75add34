"""What the Messages API refuses in the messages of a request."""

from __future__ import annotations

from typing import Any

from runs.claude.simulator.wire import blocks, invalid

_ROLES = {"user", "assistant", "system"}
_SERVER_TOOL = ("server_tool_use", "web_search_tool_result", "web_fetch_tool_result")
_FIELDS = {  # what a block of each type must have
    "text": ("text",),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "server_tool_use": ("id", "name", "input"),
    "image": ("source",),
    "document": ("source",),
}
_USER_ONLY = {"tool_result", "image", "document"}
_ASSISTANT_ONLY = {"thinking", "redacted_thinking", "tool_use", *_SERVER_TOOL}


def check_messages(messages: Any) -> None:
    """Raises ApiError for messages that the API would not accept; signatures are not looked at."""
    if not isinstance(messages, list) or not messages:
        raise invalid("messages: at least one message is required")
    for number, message in enumerate(messages):
        _check_message(number, message)
    if messages[0]["role"] != "user":
        raise invalid('messages: first message must use the "user" role')
    _check_end(messages[-1])
    _check_tool_pairs(messages)


def _check_message(number: int, message: Any) -> None:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise invalid(f"messages.{number}.role: Input should be 'user', 'assistant' or 'system'")
    if set(message) - {"role", "content"}:
        extra = sorted(set(message) - {"role", "content"})[0]
        raise invalid(f"messages.{number}.{extra}: Extra inputs are not permitted")
    content = message.get("content")
    if not isinstance(content, str | list):
        raise invalid(f"messages.{number}.content: Field required")
    if message["role"] != "assistant" and not content:
        raise invalid(f"messages.{number}: {message['role']} messages must have non-empty content")
    for index, block in enumerate(blocks(content)):
        _check_block(f"messages.{number}.content.{index}", message["role"], block)


def _check_block(place: str, role: str, block: Any) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind is None:
        raise invalid(f"{place}.type: Field required")
    for name in _FIELDS.get(kind, ()):
        if name not in block:
            raise invalid(f"{place}.{kind}.{name}: Field required")
    if kind == "text" and block["text"] == "":
        raise invalid(f"{place}: text content blocks must be non-empty")
    if kind == "tool_use" and not isinstance(block["input"], dict):
        raise invalid(f"{place}.tool_use.input: Input should be an object")
    if (
        (role == "system" and kind != "text")
        or (role == "assistant" and kind in _USER_ONLY)
        or (role == "user" and kind in _ASSISTANT_ONLY)
    ):
        raise invalid(f"{place}: `{kind}` blocks are not permitted in `{role}` messages")


def _check_end(last: dict[str, Any]) -> None:
    """An assistant message at the end is a prefill, except for a turn that a server tool paused."""
    if last["role"] != "assistant":
        return
    content = blocks(last["content"])
    if not content or content[-1]["type"] not in _SERVER_TOOL:
        raise invalid(
            "This model does not support assistant message prefill. The last message must be the user's."
        )


def _check_tool_pairs(messages: list[dict[str, Any]]) -> None:
    """Every tool_use has exactly one tool_result, in the next message, before anything else in it."""
    asked: list[str] = []
    seen: set[str] = set()
    for number, message in enumerate(messages):
        content = blocks(message["content"])
        if message["role"] == "assistant":
            _check_answered(number, asked)
            asked = [block["id"] for block in content if block["type"] == "tool_use"]
            if len(set(asked)) != len(asked) or seen & set(asked):
                raise invalid(f"messages.{number}: `tool_use` ids must be unique")
            seen.update(asked)
        else:
            asked = _check_results(number, content, asked)
    _check_answered(len(messages), asked)


def _check_results(number: int, content: list[dict[str, Any]], asked: list[str]) -> list[str]:
    results = [block["tool_use_id"] for block in content if block["type"] == "tool_result"]
    for identifier in results:
        if identifier not in asked:
            raise invalid(
                f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {identifier}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if results.count(identifier) > 1:
            raise invalid(
                f"messages.{number}: each tool_use must have a single result. Found multiple `tool_result` "
                f"blocks with id: {identifier}"
            )
    if results and any(block["type"] != "tool_result" for block in content[: len(results)]):
        raise invalid(f"messages.{number}: `tool_result` blocks must come first in a message")
    _check_answered(number, [identifier for identifier in asked if identifier not in results])
    return []


def _check_answered(number: int, missing: list[str]) -> None:
    if missing:
        raise invalid(
            f"messages.{number - 1}: `tool_use` ids were found without `tool_result` blocks immediately "
            f"after: {', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` "
            "block in the next message."
        )
