"""Scripted oddities of what is said: refusals, limits, pauses, broken calls, things from the future.

Faults of the transport (statuses, drops, stalls) are the handler's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from runs.claude.simulator.faults import Fault
from runs.claude.simulator.reply import Piece, Reply


def applied(fault: Fault, reply: Reply, body: dict[str, Any], identity: str) -> Reply:
    """The reply as the fault wants it; unchanged for faults of the transport."""
    change = _CHANGES.get(fault.kind)
    return change(fault, reply, _a_call(reply, body, identity)) if change else reply


def _a_call(reply: Reply, body: dict[str, Any], identity: str) -> Piece:
    """The first call of the reply, or one made up for a tool of the request."""
    for piece in reply.pieces:
        if piece.kind == "tool_use":
            return piece
    names = [str(tool["name"]) for tool in body.get("tools") or []]
    return Piece.call(identity, 0, (names or ["search"])[0], {"query": "errors"})


def _thoughts(reply: Reply) -> list[Piece]:
    return [piece for piece in reply.pieces if piece.kind == "thinking"]


def _refusal(fault: Fault, reply: Reply, call: Piece) -> Reply:
    details = {"type": "refusal", "category": "general_harms", "explanation": "Simulated refusal."}
    return replace(reply, pieces=[], stop_reason="refusal", stop_details=details)


def _empty(fault: Fault, reply: Reply, call: Piece) -> Reply:
    return replace(reply, pieces=[], stop_reason="end_turn")


def _max_tokens(fault: Fault, reply: Reply, call: Piece) -> Reply:
    whole = call
    if fault.argument == "text":
        texts = [piece for piece in reply.pieces if piece.kind == "text"]
        whole = (texts or [Piece("text", "So far the evidence")])[0]
    cut = replace(whole, text=whole.text[: max(2, len(whole.text) // 2)])
    return replace(reply, pieces=[*_thoughts(reply), cut], stop_reason="max_tokens")


def _bad_json(fault: Fault, reply: Reply, call: Piece) -> Reply:
    cut = fault.argument == "cut"
    broken = replace(call, text=call.text[: len(call.text) // 2] if cut else '{"query": unquoted}')
    return replace(reply, pieces=[*_thoughts(reply), broken], stop_reason="tool_use")


def _pause_turn(fault: Fault, reply: Reply, call: Piece) -> Reply:
    search = replace(
        call,
        kind="server_tool_use",
        text='{"query": "status"}',
        name="web_search",
        id=call.id.replace("toolu_", "srvtoolu_"),
    )
    return replace(reply, pieces=[*_thoughts(reply), search], stop_reason="pause_turn")


def _stop_reason(fault: Fault, reply: Reply, call: Piece) -> Reply:
    return replace(reply, stop_reason=fault.argument)


def _block(fault: Fault, reply: Reply, call: Piece) -> Reply:
    return replace(reply, pieces=[Piece(fault.argument, "unknown to the reader"), *reply.pieces])


def _event(fault: Fault, reply: Reply, call: Piece) -> Reply:
    return replace(reply, extra_events=[fault.argument])


def _redacted(fault: Fault, reply: Reply, call: Piece) -> Reply:
    hidden = [
        replace(piece, kind="redacted_thinking") if piece.kind == "thinking" else piece
        for piece in reply.pieces
    ]
    return replace(reply, pieces=hidden)


_CHANGES: dict[str, Callable[[Fault, Reply, Piece], Reply]] = {
    "refusal": _refusal,
    "empty": _empty,
    "max_tokens": _max_tokens,
    "bad_json": _bad_json,
    "pause_turn": _pause_turn,
    "stop_reason": _stop_reason,
    "block": _block,
    "event": _event,
    "redacted": _redacted,
}
