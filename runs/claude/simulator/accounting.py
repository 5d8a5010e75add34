"""Tokens and the prompt cache: deterministic, so that usage looks real and tests can compute it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from runs.claude.simulator.catalogue import Model
from runs.claude.simulator.wire import blocks, canonical, tokens, without_marker

LOOKBACK = 20  # blocks before a breakpoint in which an earlier cached prefix is found
_MESSAGE_OVERHEAD = 4  # tokens for the role and the separators
_SECONDS = {"5m": 300.0, "1h": 3600.0}


@dataclass(frozen=True)
class Segment:
    """A block of the prompt in cache order. `digest` stands for the prompt up to and including it."""

    digest: bytes
    total: int  # tokens up to and including it
    cacheable: bool
    ttl: str  # "5m" or "1h" at a breakpoint, else ""


@dataclass(frozen=True)
class InputUsage:
    """Input tokens of one request by class."""

    uncached: int
    written_5m: int
    written_1h: int
    read: int

    def as_usage(self) -> dict[str, Any]:
        """The input side of `usage`."""
        return {
            "input_tokens": self.uncached,
            "cache_creation_input_tokens": self.written_5m + self.written_1h,
            "cache_read_input_tokens": self.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.written_5m,
                "ephemeral_1h_input_tokens": self.written_1h,
            },
        }


def segments(body: dict[str, Any], account: str = "") -> list[Segment]:
    """The prompt block by block: tools, system, messages. `account` keeps the caches of API keys apart.

    A different model changes every digest; thinking, effort and tool_choice change those of the messages.
    """
    chain = _Chain(canonical([account, body["model"], body.get("speed")]))
    for tool in body.get("tools") or []:
        chain.add(tool)
    for block in blocks(body.get("system")):
        chain.add(block)
    chain.mix(canonical([body.get("thinking"), body.get("output_config"), body.get("tool_choice")]))
    for message in body["messages"]:
        chain.mix(message["role"].encode(), _MESSAGE_OVERHEAD)
        for block in blocks(message["content"]):
            chain.add(block)
    return _with_automatic(chain.segments, body.get("cache_control"))


class _Chain:
    def __init__(self, start: bytes) -> None:
        self.segments: list[Segment] = []
        self._hash = hashlib.sha256(start)
        self._total = 0

    def mix(self, data: bytes, cost: int = 0) -> None:
        self._hash.update(len(data).to_bytes(8) + data)
        self._total += cost

    def add(self, block: dict[str, Any]) -> None:
        plain = without_marker(block)
        self.mix(canonical(plain), _cost(plain))
        marker = block.get("cache_control")
        ttl = str(marker.get("ttl", "5m")) if marker else ""
        self.segments.append(Segment(self._hash.digest(), self._total, _cacheable(plain), ttl))


def _cost(block: dict[str, Any]) -> int:
    """Tokens of one block. A signature is no text to the model and costs nothing."""
    match block.get("type"):
        case "text":
            return tokens(block["text"])
        case "thinking":
            return tokens(block["thinking"])
        case _:
            return tokens(json.dumps(block, ensure_ascii=False, separators=(",", ":")))


def _cacheable(block: dict[str, Any]) -> bool:
    return block.get("type") not in {"thinking", "redacted_thinking"} and block.get("text") != ""


def _with_automatic(found: list[Segment], marker: dict[str, Any] | None) -> list[Segment]:
    """Apply the top-level `cache_control`: a breakpoint on the last block that can carry one."""
    if marker:
        for index in reversed(range(len(found))):
            if found[index].cacheable:
                if not found[index].ttl:
                    found[index] = replace(found[index], ttl=str(marker.get("ttl", "5m")))
                break
    return found


def total_tokens(body: dict[str, Any]) -> int:
    """All input tokens of a request, cached or not."""
    prompt = segments(body)
    return prompt[-1].total if prompt else 0


class PromptCache:
    """What is cached, by prefix. Times are seconds of the given clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[bytes, tuple[float, str]] = {}  # digest -> (expires, ttl)

    def charge(self, prompt: list[Segment], model: Model) -> InputUsage:
        """Count a request: read the longest cached prefix, write the rest up to each breakpoint."""
        with self._lock:
            now = self._clock()
            self._entries = {key: entry for key, entry in self._entries.items() if entry[0] > now}
            breakpoints = [index for index, segment in enumerate(prompt) if segment.ttl]
            reach = max((self._cached_before(prompt, index, now) for index in breakpoints), default=-1)
            covered = read = prompt[reach].total if reach >= 0 else 0
            written = {"5m": 0, "1h": 0}
            for index in breakpoints:
                segment = prompt[index]
                if index > reach and segment.total >= model.min_cached_tokens:
                    written[segment.ttl] += segment.total - covered
                    covered = segment.total
                    self._entries[segment.digest] = (now + _SECONDS[segment.ttl], segment.ttl)
            total = prompt[-1].total if prompt else 0
            return InputUsage(total - covered, written["5m"], written["1h"], read)

    def _cached_before(self, prompt: list[Segment], breakpoint: int, now: float) -> int:
        """Index of the longest cached prefix within the lookback of a breakpoint, or -1; refreshes it."""
        for index in range(breakpoint, max(-1, breakpoint - LOOKBACK - 1), -1):
            entry = self._entries.get(prompt[index].digest)
            if entry is not None:
                self._entries[prompt[index].digest] = (now + _SECONDS[entry[1]], entry[1])
                return index
        return -1
