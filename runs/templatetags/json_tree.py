"""JSON as a folding tree of nested <details>. Works without script; every value is escaped."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from runs.reading.words import plain

MAX_NODES = 1500
MAX_TEXT = 6000  # characters of one string
MAX_KEY = 300
MAX_CHARACTERS = 200_000  # of all strings together
OPEN_ENTRIES = 12


@dataclass
class _Budget:
    """How much of the tree may still be drawn, and which strings came from a tool result."""

    nodes: int = MAX_NODES
    characters: int = MAX_CHARACTERS
    from_tools: dict[str, str] = field(default_factory=dict)


def json_tree(text: str, open_depth: int = 2, from_tools: dict[str, str] | None = None) -> SafeString:
    """The JSON text as a tree, open to `open_depth`; text that is no JSON is shown as it is.

    `from_tools` maps strings to where they were first seen; they are marked.
    """
    if not text:
        return mark_safe("")
    try:
        value = json.loads(text)
        return format_html(
            '<div class="json">{}</div>',
            _node(value, mark_safe(""), open_depth, _Budget(from_tools=from_tools or {})),
        )
    except (ValueError, RecursionError):
        return format_html('<pre class="untrusted">{}</pre>', plain(text[:MAX_TEXT]))


def _node(value: Any, label: SafeString, depth: int, budget: _Budget) -> SafeString:
    budget.nodes -= 1
    if isinstance(value, dict):
        children = [(_key(str(key)), child) for key, child in value.items()]
        return _branch("{}", label, children, depth, budget)
    if isinstance(value, list):
        return _branch("[]", label, [(mark_safe(""), child) for child in value], depth, budget)
    return format_html("<p>{}{}</p>", label, _leaf(value, budget))


def _key(key: str) -> SafeString:
    return format_html(
        '<span class="k">{}</span>: ', plain(key[:MAX_KEY] + ("…" if len(key) > MAX_KEY else ""))
    )


def _branch(
    brackets: str,
    label: SafeString,
    children: Collection[tuple[SafeString, Any]],
    depth: int,
    budget: _Budget,
) -> SafeString:
    drawn: list[SafeString] = []
    for child_label, child in children:
        if budget.nodes <= 0:
            drawn.append(
                format_html('<p class="faint">… {} more, in the JSON export</p>', len(children) - len(drawn))
            )
            break
        drawn.append(_node(child, child_label, depth - 1, budget))
    word = "key" if brackets == "{}" else "item"
    unfolded = depth > 0 and 0 < len(children) <= OPEN_ENTRIES
    return format_html(
        '<details{}><summary>{}{} <span class="peek">{} {}{} {}</span></summary><div>{}</div></details>',
        mark_safe(" open") if unfolded else "",
        label,
        brackets[0],
        len(children),
        word,
        "" if len(children) == 1 else "s",
        brackets[1],
        mark_safe("".join(drawn)),  # noqa: S308 - every part was escaped when it was made
    )


def _leaf(value: Any, budget: _Budget) -> SafeString:
    if isinstance(value, str):
        most = max(0, min(MAX_TEXT, budget.characters))
        budget.characters -= len(value)
        shown = plain(value[:most]) + ("…" if len(value) > most else "")
        source = budget.from_tools.get(value)
        if source:
            return format_html('<mark class="from-tool" title="{}">"{}"</mark>', source, shown)
        return format_html('<span class="s">"{}"</span>', shown)
    if value is None or isinstance(value, bool):
        return format_html('<span class="n">{}</span>', {None: "null", True: "true", False: "false"}[value])
    return format_html('<span class="n">{}</span>', str(value))
