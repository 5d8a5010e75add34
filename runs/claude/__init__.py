"""One model turn over the real Anthropic SDK: build the request, stream it, name every failure.

Knows nothing of runs, tables or tools. `runs.claude.simulator` is a local Messages API for the same client.
"""

from __future__ import annotations

from runs.claude.client import connect
from runs.claude.errors import Stopped, TurnFailed
from runs.claude.request import request_body, request_sha256
from runs.claude.stream import count_prompt, stream_turn
from runs.claude.turn import Draft, ToolUse, Turn

__all__ = [
    "Draft",
    "Stopped",
    "ToolUse",
    "Turn",
    "TurnFailed",
    "connect",
    "count_prompt",
    "request_body",
    "request_sha256",
    "stream_turn",
]
