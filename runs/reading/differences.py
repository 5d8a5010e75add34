"""How the arguments of two calls differ, value by value. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

MAX_SHOWN = 6
MAX_VALUES = 400  # of one call; what lies deeper is compared as one text
MAX_CHARACTERS = 120
BEFORE = 30  # characters shown before the first one that differs
MISSING = object()
WHOLE = "(all of it)"  # the path of what has none; no key looks like it
PLAIN_KEY = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Difference:
    """One value that is not the same in both calls. A side that has no such value is empty."""

    kind: Literal["changed", "added", "removed"]
    path: str
    then: str
    now: str


@dataclass(frozen=True)
class Differences:
    """What is different, the first few in the order of this call, and how many more there are."""

    shown: tuple[Difference, ...]
    more: int

    @property
    def none(self) -> bool:
        """The arguments are the same."""
        return not self.shown


def differences(then: str, now: str) -> Differences:
    """How this call (`now`) differs from an earlier one (`then`); both are canonical JSON text.

    Nothing is shown only when both are the same text: what paths cannot tell apart is shown whole.
    """
    if then == now:
        return Differences((), 0)
    before, after = _flat(then), _flat(now)
    found = [
        _difference(path, before.get(path, MISSING), after.get(path, MISSING))
        for path in dict.fromkeys([*after, *before])
        if not _same(before.get(path, MISSING), after.get(path, MISSING))
    ]
    found = found or [Difference("changed", WHOLE, _cut(then, 0), _cut(now, 0))]
    return Differences(tuple(found[:MAX_SHOWN]), max(0, len(found) - MAX_SHOWN))


def _same(then: object, now: object) -> bool:
    """True is not 1 in JSON, and neither is 1.0."""
    return type(then) is type(now) and then == now


def _difference(path: str, then: object, now: object) -> Difference:
    if then is MISSING:
        return Difference("added", path, "", _cut(_text(now), 0))
    if now is MISSING:
        return Difference("removed", path, _cut(_text(then), 0), "")
    old, new = _text(then), _text(now)
    start = _common(old, new) - BEFORE if max(len(old), len(new)) > MAX_CHARACTERS else 0
    return Difference("changed", path, _cut(old, start), _cut(new, start))


def _common(then: str, now: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(then, now, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(then), len(now)))


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str, start: int) -> str:
    """A piece of the text that fits on the card, with dots where it was cut."""
    start = max(0, start)
    end = start + MAX_CHARACTERS
    return ("…" if start else "") + text[start:end] + ("…" if len(text) > end else "")


def _flat(text: str) -> dict[str, Any]:
    """The values of the JSON text by their path; objects and lists that hold nothing are values, too."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return {WHOLE: text}
    if whole == {}:
        return {}
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", whole)]
    while waiting:
        path, value = waiting.pop()
        inside = _inside(path, value)
        if not inside or len(found) + len(waiting) > MAX_VALUES:
            found[path or WHOLE] = value if not inside else json.dumps(value, sort_keys=True)
        else:
            waiting.extend(reversed(inside))
    return found


def _inside(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"{path}.{_key(key)}" if path else _key(key), child) for key, child in value.items()]
    if isinstance(value, list):
        return [(f"{path}[{index}]", child) for index, child in enumerate(value)]
    return []


def _key(key: str) -> str:
    """A key with a dot, a bracket or a space in it stands in quotes: no two paths look the same."""
    return key if PLAIN_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
