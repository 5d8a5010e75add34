"""Thinking blocks are bound to everything before them; a changed history is refused as the API refuses it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from runs.claude.simulator.wire import blocks, canonical, invalid, without_marker

# Constant, so that the simulator of another process accepts the history after a crash. No secret:
# it guards tests against a rewritten history, not anybody against an attacker.
_KEY = b"agentops simulator: thinking blocks"
_PREFIX = 32  # bytes of SHA-256


class Prefix:
    """The running hash of a conversation: tools and system first, then block after block."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._hash = hashlib.sha256()
        self._add("tools", [without_marker(tool) for tool in body.get("tools") or []])
        self._add("system", [without_marker(block) for block in blocks(body.get("system"))])

    def start_message(self, role: str) -> None:
        self._add("role", role)

    def add_block(self, block: dict[str, Any]) -> None:
        self._add("block", without_marker(block))

    def sign(self, thinking: str) -> str:
        """The signature of a thinking block that comes next."""
        prefix = self._hash.digest()
        return base64.b64encode(prefix + _seal(prefix, thinking)).decode()

    def problem(self, thinking: str, signature: Any) -> str:
        """What is wrong with a replayed thinking block that comes next; "" when nothing is."""
        try:
            raw = base64.b64decode(signature, validate=True)
        except (ValueError, TypeError):
            return "Invalid `signature` in `thinking` block."
        prefix, seal = raw[:_PREFIX], raw[_PREFIX:]
        if not hmac.compare_digest(seal, _seal(prefix, thinking)):
            return "Invalid `signature` in `thinking` block. The block was modified."
        if not hmac.compare_digest(prefix, self._hash.digest()):
            return (
                "Invalid `signature` in `thinking` block. The block is bound to a different conversation. "
                "`system`, `tools` and all earlier messages must be sent back exactly as they were."
            )
        return ""

    def _add(self, label: str, value: Any) -> None:
        data = canonical(value)
        self._hash.update(f"{label}:{len(data)}:".encode() + data)


def prefix_of(body: dict[str, Any]) -> Prefix:
    """The prefix after all messages of the request. Raises ApiError for a block that does not fit."""
    prefix = Prefix(body)
    for number, message in enumerate(body["messages"]):
        prefix.start_message(message["role"])
        for index, block in enumerate(blocks(message["content"])):
            problem = _problem(prefix, block)
            if problem:
                raise invalid(f"messages.{number}.content.{index}: {problem}")
            prefix.add_block(block)
    return prefix


def _problem(prefix: Prefix, block: dict[str, Any]) -> str:
    if block["type"] == "thinking":
        return prefix.problem(block["thinking"], block["signature"])
    if block["type"] == "redacted_thinking":
        return prefix.problem("", block["data"]).replace("thinking", "redacted_thinking")
    return ""


def _seal(prefix: bytes, thinking: str) -> bytes:
    return hmac.digest(_KEY, prefix + thinking.encode("utf-8", "surrogatepass"), "sha256")
