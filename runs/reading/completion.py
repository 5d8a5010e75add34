"""What may come next in the search box: fields, then their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.contrib.auth.models import User

from runs import agents, tokens
from runs.models import Run, RunTag
from runs.reading.language import CHOICES, FIELDS, NUMBERS
from tools import registry

MOST = 12
NEWEST = 300  # runs whose models and agents are offered
_LAST = re.compile(r'(?:^|\s)-?(?:([A-Za-z_]+):)?"?([^\s"]*)$')


@dataclass(frozen=True)
class Suggestion:
    """What would stand in place of the last word, and what it means."""

    insert: str
    label: str
    about: str


def complete(text: str) -> list[Suggestion]:
    """What fits the end of what was typed so far; nothing within plain words that begin no field."""
    found = _LAST.search(text[-200:])
    if found is None:
        return []
    name, begun = found[1], found[2]
    if name is None and not begun:
        return []
    if name is None:
        return [
            Suggestion(f"{field}:", f"{field}:", about)
            for field, (about, _) in FIELDS.items()
            if field.startswith(begun.lower())
        ][: MOST + 8]
    name = name.lower()
    if name not in FIELDS:
        return []
    *chosen, last = begun.split(",")
    before = "".join(f"{value}," for value in chosen)
    values = [value for value in _values(name, last) if tokens.fold(value).startswith(tokens.fold(last))]
    shown = [value for value in dict.fromkeys(values) if value not in chosen][:MOST]
    return [Suggestion(f"{name}:{before}{_quoted(value)}", value, "") for value in shown]


def _values(name: str, begun: str) -> Iterable[str]:
    if name in CHOICES:
        return CHOICES[name]
    if name in NUMBERS:
        return (FIELDS[name][1],)
    offered: dict[str, Callable[[], Iterable[str]]] = {
        "agent": lambda: [*agents.installed(), *_newest("agent")],
        "model": lambda: _newest("model"),
        "tool": lambda: sorted(registry.TOOLS),
        "user": lambda: [*_newest("started_by"), *User.objects.values_list("username", flat=True)[:200]],
        "tag": lambda: RunTag.objects.filter(name__startswith=begun.lower()).order_by("name").distinct()
        .values_list("name", flat=True)[:MOST],
        "error": lambda: ("any", "timeout", "unavailable", "invalid", "denied", "overloaded", "repeated"),
        "after": lambda: ("today", "yesterday", "1h", "24h", "7d", "30d"),
        "charged": lambda: ("today", "24h..", "7d..", "30d.."),
        "caused": lambda: ("question", *sorted(registry.TOOLS)),
        "billed": lambda: _newest("model"),
        "before": lambda: ("today", "yesterday", "24h", "7d", "30d"),
    }  # fmt: skip
    return offered[name]()


def _newest(column: str) -> list[str]:
    newest = Run.objects.order_by("-created_at", "-pk").values_list(column, flat=True)[:NEWEST]
    return sorted(set(newest))


def _quoted(value: str) -> str:
    return f'"{value}"' if re.search(r"[\s,]", value) else value
