"""Build the request of one model turn. Pure: the same rows give the same bytes, today and after a crash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, to_json

# System and tools outlive a human approval in the cache; they are written once and read every turn.
_PREFIX_CACHE = {"type": "ephemeral", "ttl": "1h"}
_TURN_CACHE = {"type": "ephemeral"}
# The API looks back 20 blocks from a breakpoint for something cached. A turn with more blocks than that
# gets markers in between; four breakpoints are allowed, two are taken.
_LOOKBACK = 20
_STRIDE = 15
_SPARE_BREAKPOINTS = 2


def request_body(
    config: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    *,
    max_tokens: int,
    tool_choice: Literal["auto", "none"] = "auto",
) -> dict[str, Any]:
    """The keyword arguments for `messages.stream`, from a run's frozen configuration and its messages.

    Reads `model`, `system`, `tools`, `thinking` and `effort` of the configuration; changes no input.
    Tools stay in the request when `tool_choice` is "none": without them the prefix would differ, and newer
    models refuse their own history. Empty `tools`, `thinking` or `effort` are left out.
    """
    body: dict[str, Any] = {"model": config["model"], "max_tokens": max_tokens}
    system = [dict(block) for block in config["system"]]
    if system:
        system[-1]["cache_control"] = dict(_PREFIX_CACHE)
        body["system"] = system
    if config["tools"]:
        body["tools"] = sorted((dict(tool) for tool in config["tools"]), key=lambda tool: str(tool["name"]))
        body["tool_choice"] = {"type": tool_choice}
    if config.get("thinking"):
        body["thinking"] = dict(config["thinking"])
    if config.get("effort"):
        body["output_config"] = {"effort": config["effort"]}
    body["cache_control"] = dict(_TURN_CACHE)
    body["messages"] = _with_markers(messages)
    return body


def request_sha256(body: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the request as compact UTF-8 JSON in its own key order.

    Key order is part of what the model reads, so two bodies that differ only in it have different hashes.
    """
    try:
        sent = to_json(body)  # in half the time: a long conversation is written anew for each turn
    except PydanticSerializationError:  # half of a surrogate pair, which UTF-8 does not have
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        sent = text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(sent).hexdigest()


def _with_markers(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, with cache markers inside the newest turn when it is longer than the lookback."""
    copied = [dict(message) for message in messages]
    newest = _newest_turn(copied)
    if len(newest) <= _LOOKBACK:
        return copied
    for position in [_STRIDE * (n + 1) for n in range(_SPARE_BREAKPOINTS)]:
        while position < len(newest) - 1:
            message, index = newest[position]
            if _mark(copied[message], index):
                break
            position += 1
    return copied


def _newest_turn(messages: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """(message, block) of every block that was added since the last request."""
    start = len(messages)
    while start and messages[start - 1]["role"] != "assistant":
        start -= 1
    while start and messages[start - 1]["role"] == "assistant":
        start -= 1
    return [
        (number, index)
        for number in range(start, len(messages))
        if isinstance(messages[number]["content"], list)
        for index in range(len(messages[number]["content"]))
    ]


def _mark(message: dict[str, Any], index: int) -> bool:
    """Put a marker on one block; False for blocks that cannot carry one (thinking, empty text)."""
    block = message["content"][index]
    if block["type"] in {"thinking", "redacted_thinking"} or block.get("text") == "":
        return False
    content = list(message["content"])
    content[index] = {**block, "cache_control": dict(_TURN_CACHE)}
    message["content"] = content
    return True
