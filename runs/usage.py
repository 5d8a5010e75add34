"""What a usage object of the API means: tokens by class, the parts that are priced apart, the price context.

Pure, and never an error: what cannot be a count is none, and `is_uncertain` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

MOST = 10**9  # tokens of one call; no model reads or writes so many
STATED_FEES = frozenset({"web_search_requests", "web_fetch_requests"})  # the second is free
REPORTED = ("input_tokens", "output_tokens")  # the API reports them always
COUNTS = (*REPORTED, "cache_creation_input_tokens", "cache_read_input_tokens")
LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


@dataclass(frozen=True)
class Usage:
    """Tokens of one model call by class. The classes do not overlap; thinking is part of output."""

    input_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def prompt_tokens(self) -> int:
        """Everything sent: the price tier depends on it."""
        return (
            self.input_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
            + self.cache_read_tokens
        )

    @property
    def total_tokens(self) -> int:
        """All tokens, sent and received."""
        return self.prompt_tokens + self.output_tokens


def context_from_api(usage: Mapping[str, Any]) -> str:
    """What an API usage object says that selects a price besides the model, in words with commas.

    batch, priority, fast, us; `tools` where a server tool was used whose fee nobody states.
    """
    words = [str(usage.get(name) or "") for name in ("service_tier", "speed", "inference_geo")]
    known = [word for word in words if word in {"batch", "priority", "fast", "us"}]
    if any(count for name, count in _object(usage, "server_tool_use").items() if name not in STATED_FEES):
        known.append("tools")
    return ",".join(known)


def usage_from_api(usage: Mapping[str, Any]) -> Usage:
    """The classes of an API usage object.

    The total of cache writes counts, however they are split: what the split does not explain are writes for
    five minutes, and what it has too many is taken from these first. Without a total the split counts.
    """
    five, hour = (_count(_object(usage, "cache_creation").get(name)) for name in LIFETIMES)
    written = _count(usage.get("cache_creation_input_tokens")) or five + hour
    hour = min(hour, written)
    return Usage(
        input_tokens=_count(usage.get("input_tokens")),
        cache_write_5m_tokens=written - hour,
        cache_write_1h_tokens=hour,
        cache_read_tokens=_count(usage.get("cache_read_input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        thinking_tokens=_count(_object(usage, "output_tokens_details").get("thinking_tokens")),
        web_searches=_count(_object(usage, "server_tool_use").get("web_search_requests")),
    )


def is_uncertain(usage: Mapping[str, Any]) -> bool:
    """Whether this usage object leaves open what was used, so that its charge is an estimate.

    A count is missing that the API always reports, something is no count, or the split of cache writes does
    not explain their total.
    """
    if any(usage.get(name) is None for name in REPORTED) or not _is_sound(usage):
        return True
    split = _object(usage, "cache_creation")
    written = _count(usage.get("cache_creation_input_tokens"))
    five, hour = (_count(split.get(name)) for name in LIFETIMES)
    if hour and split.get(LIFETIMES[0]) is None:  # the rest is for five minutes
        return hour > written
    return five + hour != written


def parts_from_api(model: str, usage: Mapping[str, Any]) -> tuple[tuple[str, Usage], ...]:
    """What one response is billed for: usage and the model that it is billed at; first that of the answer.

    The answer has several parts when it was made in iterations: each has a prompt size of its own, a fallback
    or an advisor is another model, and a compaction is not in the totals of the response. Of what the totals
    have and the iterations have not, nothing is lost.
    """
    total = usage_from_api(usage)
    entries = [entry for entry in _list(usage, "iterations") if isinstance(entry, Mapping)]
    if not entries:
        return ((model, total),)
    own = max((n for n, entry in enumerate(entries) if _model(entry, model) == model), default=0)
    parts = _with_lifetimes(entries, total)
    rest = total
    for part, entry in zip(parts, entries, strict=True):
        if entry.get("type") != "compaction":
            rest = Usage(*(max(0, getattr(rest, f.name) - getattr(part, f.name)) for f in fields(Usage)))
    parts[own] += rest
    named = [(_model(entry, model), part) for entry, part in zip(entries, parts, strict=True)]
    return (named.pop(own), *named)


def _with_lifetimes(entries: list[Mapping[str, Any]], total: Usage) -> list[Usage]:
    """The usage of each iteration. Where an iteration does not split its writes, the total's split holds."""
    parts = [usage_from_api(entry) for entry in entries]
    hour = total.cache_write_1h_tokens - sum(part.cache_write_1h_tokens for part in parts)
    for n, entry in enumerate(entries):
        part = parts[n]
        if hour > 0 and not _object(entry, "cache_creation") and entry.get("type") != "compaction":
            moved = min(hour, part.cache_write_5m_tokens)
            hour -= moved
            parts[n] = replace(
                part,
                cache_write_5m_tokens=part.cache_write_5m_tokens - moved,
                cache_write_1h_tokens=part.cache_write_1h_tokens + moved,
            )
    return parts


def _model(entry: Mapping[str, Any], otherwise: str) -> str:
    return str(entry.get("model") or otherwise)


def _is_sound(usage: Mapping[str, Any]) -> bool:
    """Whether all that is a count is one, and all parts are objects where they are there at all."""
    parts = [usage.get(name) for name in ("cache_creation", "output_tokens_details", "server_tool_use")]
    counts = [usage.get(name) for name in COUNTS]
    counts += [count for part in parts if isinstance(part, Mapping) for count in part.values()]
    iterations = usage.get("iterations")
    return (
        all(part is None or isinstance(part, Mapping) for part in parts)
        and all(count is None or _is_count(count) for count in counts)
        and (iterations is None or isinstance(iterations, list))
        and all(isinstance(entry, Mapping) and _is_sound(entry) for entry in iterations or ())
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def _count(value: Any) -> int:
    return value if _is_count(value) else 0


def _object(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = usage.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(usage: Mapping[str, Any], name: str) -> list[Any]:
    value = usage.get(name)
    return value if isinstance(value, list) else []
