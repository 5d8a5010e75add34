"""A reply as the sequence of server-sent events that the API streams."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runs.claude.simulator.reply import Piece, Reply
from runs.claude.simulator.wire import tokens

# About four tokens a chunk, cut at spaces where there are some.
_CHUNK = re.compile(r".{1,15}\s|.{1,16}", re.DOTALL)


@dataclass(frozen=True)
class StreamEvent:
    """One event; `tokens` were generated for it, which is what takes time."""

    name: str
    data: dict[str, Any]
    tokens: int = 0

    def encoded(self) -> bytes:
        """The event on the wire."""
        text = json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))
        return f"event: {self.name}\ndata: {text}\n\n".encode("utf-8", "surrogatepass")


def stream_events(reply: Reply) -> list[StreamEvent]:
    """All events of a reply, `message_start` to `message_stop`."""
    found = [_event("message_start", message=reply.opening()), _event("ping")]
    found += [_event(name, note="from the future") for name in reply.extra_events]
    for index, piece in enumerate(reply.pieces):
        found += _block_events(index, piece)
    usage = {
        **{name: value for name, value in reply.input_usage.as_usage().items() if name != "cache_creation"},
        "output_tokens": reply.output_tokens,
        "output_tokens_details": {"thinking_tokens": reply.thinking_tokens},
    }
    found.append(_event("message_delta", delta=reply.closing(), usage=usage))
    found.append(_event("message_stop"))
    return found


def error_event(type: str, request_id: str) -> StreamEvent:
    """The event of an error inside a stream that had begun well."""
    error = {"type": type, "message": type.removesuffix("_error").replace("_", " ").capitalize()}
    return _event("error", error=error, request_id=request_id)


def _block_events(index: int, piece: Piece) -> Iterator[StreamEvent]:
    yield _event("content_block_start", index=index, content_block=_started(piece))
    for delta, cost in _deltas(piece):
        yield StreamEvent(
            "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}, cost
        )
    yield _event("content_block_stop", index=index)


def _started(piece: Piece) -> dict[str, Any]:
    block = piece.block()
    match piece.kind:
        case "thinking":
            return {**block, "thinking": "", "signature": ""}
        case "text":
            return {**block, "text": ""}
        case "tool_use" | "server_tool_use":
            return {**block, "input": {}}
        case _:
            return block


def _deltas(piece: Piece) -> Iterator[tuple[dict[str, Any], int]]:
    match piece.kind:
        case "thinking":
            if piece.shown:
                for chunk in _CHUNK.findall(piece.text):
                    yield {"type": "thinking_delta", "thinking": chunk}, tokens(chunk)
            hidden = 0 if piece.shown else piece.cost
            yield {"type": "signature_delta", "signature": piece.signature}, hidden
        case "text":
            for chunk in _CHUNK.findall(piece.text):
                yield {"type": "text_delta", "text": chunk}, tokens(chunk)
        case "tool_use" | "server_tool_use":
            yield {"type": "input_json_delta", "partial_json": ""}, 0
            for chunk in _CHUNK.findall(piece.text):
                yield {"type": "input_json_delta", "partial_json": chunk}, tokens(chunk)
        case _:
            return


def _event(name: str, **data: Any) -> StreamEvent:
    return StreamEvent(name, {"type": name, **data})
