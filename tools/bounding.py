"""Any value as JSON of bounded size: data is cut, what the envelope says about it never is."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from tools import redaction

LINE_CHARACTERS = 500
HARD_LIMIT = 24_000
MOST_DEPTH = 12
MOST_ITEMS = 5_000  # values that are looked at in one result; the rest could never fit
_NUMBER_DIGITS = 40


class Tidier:
    """Turns what a tool returned into plain JSON values, counting what it had to change."""

    def __init__(self) -> None:
        self.redactions: Counter[str] = Counter()
        self.not_finite = 0
        self.shortened = 0
        self.dropped = 0
        self._items = 0

    def value(self, value: object, depth: int = 0) -> Any:
        """The value as JSON: objects, lists, cleaned text, finite numbers."""
        self._items += 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(str(value))
        if isinstance(value, (int, float, Decimal)) and not isinstance(value, Enum):
            return self._number(value)
        if depth >= MOST_DEPTH:
            self.dropped += 1
            return "…"
        if isinstance(value, Mapping):
            return self._object(value, depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._list(value, depth)
        if isinstance(value, bytes | bytearray):
            return self.text(bytes(value[: redaction.MOST_CHARACTERS]).decode("utf-8", "replace"))
        if isinstance(value, (date, UUID, Enum)):
            return self.text(str(value.value if isinstance(value, Enum) else value))
        raise TypeError(f"a tool returned {type(value).__name__}, which JSON cannot hold")

    def text(self, text: str, limit: int = LINE_CHARACTERS) -> str:
        """Cleaned text, cut in the middle when it is longer than the limit."""
        self.dropped += len(text) > redaction.MOST_CHARACTERS
        cleaned = redaction.clean(text, self.redactions)
        if len(cleaned) > limit:
            self.shortened += 1
        return middle_cut(cleaned, limit)

    def _number(self, value: float | Decimal) -> int | float | str | None:
        if isinstance(value, int):
            return (
                value
                if abs(value) < 10**_NUMBER_DIGITS
                else self.text(f"about 10^{value.bit_length() * 0.30103:.0f}")
            )
        if not math.isfinite(value):
            self.not_finite += 1
            return None
        return float(value)

    def _object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        tidy: dict[str, Any] = {}
        for key, item in value.items():
            if self._items >= MOST_ITEMS:
                self.dropped += 1
                break
            name = self.text(str(key), 200)
            if isinstance(item, str) and item and redaction.is_secret_name(name):
                self.redactions["secret"] += 1
                tidy[name] = "[redacted:secret]"
            else:
                tidy[name] = self.value(item, depth + 1)
        return tidy

    def _list(self, values: list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any], depth: int) -> list[Any]:
        tidy = []
        for item in values:
            if self._items >= MOST_ITEMS:
                self.dropped += 1
                break
            tidy.append(self.value(item, depth + 1))
        return tidy


def middle_cut(text: str, limit: int) -> str:
    """The text with its middle left out when it is longer than `limit` characters; says how much."""
    if len(text) <= limit:
        return text
    mark = f"…[+{len(text) - limit:,} chars]…"
    if limit <= len(mark) + 2:
        return text[:limit]
    kept = limit - len(mark)
    head = kept - kept // 3
    return text[:head] + mark + text[len(text) - (kept - head) :]


def dumps(value: object) -> str:
    """Compact JSON with readable characters; raises ValueError for a number that is not finite."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def fit(data: Any, room: int) -> tuple[Any, int]:
    """(data cut to at most `room` characters of JSON, how many values were left out).

    The largest list loses its last half again and again; then long texts; then the largest entries.
    """
    removed = 0
    for _ in range(200):
        size = len(dumps(data))
        if size <= room:
            return data, removed
        longest = _largest_list(data)
        if longest is not None:
            keep = max(1, min(len(longest) - 1, len(longest) * room // size))
            removed += len(longest) - keep
            del longest[keep:]
        elif not _shorten(data):
            removed += _drop_largest(data)
            if not data:
                break
    return type(data)() if isinstance(data, (dict, list)) else None, removed + 1


def _containers(value: Any) -> list[Any]:
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (dict, list)):
            found.append(item)
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return found


def _largest_list(data: Any) -> list[Any] | None:
    lists = [item for item in _containers(data) if isinstance(item, list) and len(item) > 1]
    return max(lists, key=lambda item: len(dumps(item)), default=None)


def _shorten(data: Any) -> bool:
    """Cut every text that is longer than 120 characters; False when there is none."""
    changed = False
    for container in _containers(data):
        pairs = list(container.items() if isinstance(container, dict) else enumerate(container))
        for key, item in pairs:
            if isinstance(item, str) and len(item) > 120:
                container[key] = middle_cut(item, 120)
                changed = True
    return changed


def _drop_largest(data: Any) -> int:
    """Remove the largest entry of the outermost container that has any."""
    if isinstance(data, dict) and data:
        del data[max(data, key=lambda key: len(key) + len(dumps(data[key])))]
        return 1
    if isinstance(data, list) and data:
        data.pop()
        return 1
    return 0
