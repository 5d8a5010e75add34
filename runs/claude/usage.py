"""Merges the usage that the events of one stream report: message_start, then every message_delta. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def merge_usage(before: Mapping[str, Any], reported: Mapping[str, Any]) -> dict[str, Any]:
    """The usage so far after one more report, in the field names of the API.

    Reports are cumulative: a value replaces the one before, and what a report leaves out or calls null stays.
    A zero does not replace a positive count, unless the report has at least as many tokens of the prompt in
    its other classes: gateways fill in zeros for what they do not know, and nobody takes back what was sent.
    """
    merged = dict(before)
    for name, value in reported.items():
        earlier = merged.get(name)
        if isinstance(value, Mapping):  # the lifetimes of cache writes, server tools, details of the output
            earlier = earlier if isinstance(earlier, Mapping) else {}
            merged[name] = {**earlier, **{key: count for key, count in value.items() if count is not None}}
            _keep_positive(merged[name], earlier, value, value)
        elif value is not None or name not in merged:
            merged[name] = value
    _keep_positive(merged, before, reported, _PROMPT)
    _keep_positive(merged, before, reported, ("output_tokens",))
    return merged


def _keep_positive(
    merged: dict[str, Any], before: Mapping[str, Any], reported: Mapping[str, Any], names: Iterable[str]
) -> None:
    """Put back what a report set to zero, when it has fewer of these in all than were there before."""
    names = list(names)
    if sum(_count(reported.get(name)) for name in names) >= sum(_count(before.get(name)) for name in names):
        return
    for name in names:
        if reported.get(name) == 0 and _count(before.get(name)):
            merged[name] = before[name]


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
