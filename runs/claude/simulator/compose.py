"""Turn the brain's answer into a message of the API: ids, output limit, signatures."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from runs.claude.simulator.accounting import InputUsage
from runs.claude.simulator.answer import Answer
from runs.claude.simulator.catalogue import Model
from runs.claude.simulator.faults import Fault
from runs.claude.simulator.oddities import applied
from runs.claude.simulator.reply import Piece, Reply
from runs.claude.simulator.signing import prefix_of
from runs.claude.simulator.wire import canonical, tokens


def build(
    body: dict[str, Any], model: Model, answer: Answer, usage: InputUsage, fault: Fault | None = None
) -> Reply:
    """The reply to a valid request. Identical requests get identical replies, ids included.

    Raises ApiError when a thinking block of the history is not where it was written.
    """
    read = {name: value for name, value in body.items() if name != "stream"}
    identity = hashlib.sha256(canonical(read)).hexdigest()
    pieces = [*_thoughts(body, model, answer), *_contents(answer, identity)]
    stop_reason = "tool_use" if answer.calls else "end_turn"
    reply = Reply(f"msg_sim_{identity[:24]}", str(body["model"]), pieces, stop_reason, usage)
    if fault is not None:
        reply = applied(fault, reply, body, identity)
    return _signed(_limited(reply, int(body["max_tokens"])), body)


def _thoughts(body: dict[str, Any], model: Model, answer: Answer) -> list[Piece]:
    thinking = body.get("thinking") or {"type": "adaptive" if model.thinks else "disabled"}
    if thinking["type"] == "disabled" or not answer.thinking:
        return []
    shown = thinking.get("display", "summarized" if model.shows_thinking else "omitted") == "summarized"
    return [Piece("thinking", answer.thinking, shown=shown)]


def _contents(answer: Answer, identity: str) -> list[Piece]:
    texts = [Piece("text", answer.text)] if answer.text else []
    return [
        *texts,
        *(Piece.call(identity, number, call.name, call.input) for number, call in enumerate(answer.calls)),
    ]


def _limited(reply: Reply, max_tokens: int) -> Reply:
    """Cut the reply where the output limit ends it, as the API does: in the middle of whatever it was."""
    if reply.output_tokens <= max_tokens:
        return reply
    left, kept = max_tokens, list[Piece]()
    for piece in reply.pieces:
        if piece.cost <= left:
            kept.append(piece)
            left -= piece.cost
            continue
        overhead = piece.cost - tokens(piece.text)
        cut = piece.text.encode()[: max(0, left - overhead) * 4].decode(errors="ignore")
        if cut:
            kept.append(replace(piece, text=cut))
        break
    return replace(reply, pieces=kept, stop_reason="max_tokens")


def _signed(reply: Reply, body: dict[str, Any]) -> Reply:
    prefix = prefix_of(body)
    prefix.start_message("assistant")
    signed = []
    for piece in reply.pieces:
        if piece.kind == "thinking":
            piece = replace(piece, signature=prefix.sign(piece.text if piece.shown else ""))
        elif piece.kind == "redacted_thinking":
            piece = replace(piece, signature=prefix.sign(""))
        prefix.add_block(piece.block())
        signed.append(piece)
    return replace(reply, pieces=signed)
