"""A message of the API in the making, to be sent at once or as a stream."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from runs.claude.simulator.accounting import InputUsage
from runs.claude.simulator.wire import tokens


@dataclass(frozen=True)
class Piece:
    """A content block in the making. `text` is the thinking, the text, or the JSON text of an input."""

    kind: str
    text: str = ""
    name: str = ""
    id: str = ""
    signature: str = ""
    shown: bool = True  # False: thinking whose text is withheld (`display: omitted`)

    @classmethod
    def call(cls, identity: str, number: int, name: str, arguments: dict[str, Any]) -> Piece:
        """A tool call. Its id follows from the request and the call's number in the turn."""
        digest = hashlib.sha256(f"{identity}:{number}".encode()).hexdigest()
        return cls("tool_use", json.dumps(arguments, ensure_ascii=False), name, f"toolu_sim_{digest[:24]}")

    @property
    def cost(self) -> int:
        """Output tokens, shown or not."""
        return tokens(self.text) + (8 if self.name else 0)

    def block(self) -> dict[str, Any]:
        """The complete content block."""
        match self.kind:
            case "thinking":
                return {
                    "type": "thinking",
                    "thinking": self.text if self.shown else "",
                    "signature": self.signature,
                }
            case "redacted_thinking":
                return {"type": "redacted_thinking", "data": self.signature}
            case "text":
                return {"type": "text", "text": self.text}
            case "tool_use":
                caller = {"type": "direct"}
                return {"type": "tool_use", **self._called(), "input": _parsed(self.text), "caller": caller}
            case "server_tool_use":
                return {"type": "server_tool_use", **self._called(), "input": _parsed(self.text)}
            case _:
                return {"type": self.kind, "data": self.text}

    def _called(self) -> dict[str, str]:
        return {"id": self.id, "name": self.name}


@dataclass(frozen=True)
class Reply:
    """A complete answer of the simulator, ready to be sent at once or as a stream."""

    id: str
    model: str
    pieces: list[Piece]
    stop_reason: str
    input_usage: InputUsage
    stop_details: dict[str, Any] | None = None
    extra_events: list[str] = field(default_factory=list)

    @property
    def output_tokens(self) -> int:
        return max(2, sum(piece.cost for piece in self.pieces))

    @property
    def thinking_tokens(self) -> int:
        return sum(piece.cost for piece in self.pieces if piece.kind in {"thinking", "redacted_thinking"})

    def message(self) -> dict[str, Any]:
        """The body of an answer without streaming."""
        return {
            **self.opening(),
            "content": [piece.block() for piece in self.pieces],
            **self.closing(),
            "usage": {
                **self.opening()["usage"],
                "output_tokens": self.output_tokens,
                "output_tokens_details": {"thinking_tokens": self.thinking_tokens},
            },
        }

    def opening(self) -> dict[str, Any]:
        """The message as `message_start` shows it: the input is counted, nothing is written yet."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": {
                **self.input_usage.as_usage(),
                "output_tokens": 1,
                "service_tier": "standard",
                "inference_geo": "global",
                "speed": "standard",
            },
        }

    def closing(self) -> dict[str, Any]:
        """How and why the message ended."""
        return {
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "stop_details": self.stop_details,
            "container": None,
        }


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # cut off or broken on purpose; only a stream can show it as it is
        return {}
