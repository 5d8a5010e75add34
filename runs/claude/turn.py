"""What one model turn is to the rest of the program: plain values, no SDK types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToolUse:
    """One call the model asked for. `arguments` is the exact JSON text of its input, as in the message."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Turn:
    """A complete model turn: its stream ended with `message_stop` and a stop reason.

    `message` is the exact JSON text of the whole assistant message; its content is what is replayed.
    `stop_reason` is passed on as it came, known or not; unless it is "tool_use", the last of `tool_uses`
    may be cut off and none of them is meant to run. `usage` has the field names of the Messages API.
    `reasoning` and `text` are for display: joined from the blocks, without characters a database refuses.
    """

    message: str
    stop_reason: str
    stop_details: dict[str, Any] | None
    usage: dict[str, Any]
    model: str
    api_request_id: str
    reasoning: str
    text: str
    tool_uses: tuple[ToolUse, ...]


@dataclass(frozen=True)
class Draft:
    """A snapshot of a turn while it streams, for display only. `tool_name`: the call being written now."""

    reasoning: str
    text: str
    tool_name: str
