"""Any value as JSON of bounded size: data is cut, what the envelope says about it never is."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any
from uuid import UUID

from tools import redaction

LINE_CHARACTERS = 500
HARD_LIMIT = 24_000
BUDGET = 4 * HARD_LIMIT  # characters of one value that are looked at; the rest could never fit
READ_CHARACTERS = 2_000  # of one text that are looked at
TAIL_CHARACTERS = 500  # of those, how many may come from its end
MOST_DEPTH = 12
_NUMBER_DIGITS = 40
_NAME_CHARACTERS = 200
_VALUE_COST = 8  # what a value uses of the budget besides its text
_LIST_SHARE = 4  # a list leaves one part in so many of the budget to what comes after it
_FAIR_SHARE = 40  # characters that every entry of an object may have before others get more
_SHORTEST_TEXT = 20  # a text cut to less says nothing
_MARK_CHARACTERS = 40  # more than a mark ever has
_NOTHING = object()


class Tidier:
    """Turns what a tool returned into plain JSON values, counting what it had to change.

    The work is bounded whatever the value is: see BUDGET and READ_CHARACTERS. With `one_line`, texts hold
    no line breaks.
    """

    def __init__(self, *, one_line: bool = False) -> None:
        self.redactions: Counter[str] = Counter()
        self.not_finite = 0
        self.shortened = 0
        self.dropped = 0
        self._one_line = one_line
        self._left = 0  # of the budget
        self._reserved = 0  # of it, for what comes after the lists that are being read

    def value(self, value: object, budget: int = BUDGET) -> Any:
        """The value as JSON: objects, lists, cleaned text, finite numbers.

        What the budget does not reach is left out and counted. Raises TypeError for what JSON cannot hold.
        """
        self._left, self._reserved = budget, 0
        return self._value(value, 0)

    def _value(self, value: object, depth: int) -> Any:
        self._left -= _VALUE_COST
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value)
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
            return self.text(bytes(value[: 2 * READ_CHARACTERS]).decode("utf-8", "replace"))
        if isinstance(value, (date, UUID, Enum)):
            return self.text(str(value.value if isinstance(value, Enum) else value))
        raise TypeError(f"a tool returned {type(value).__name__}, which JSON cannot hold")

    def text(self, text: str, limit: int = LINE_CHARACTERS) -> str:
        """Cleaned text, cut in the middle when it is longer than the limit."""
        if len(text) < redaction.SHORTEST_SECRET and text.isascii() and text.isprintable():
            self._left -= len(text)  # most texts are like this, and cleaning leaves them as they are
            return text
        read, shorter_by = excerpt(text)
        self._left -= len(read)
        cleaned = redaction.clean(read, self.redactions)
        if self._one_line:
            cleaned = " ".join(cleaned.splitlines())
        if shorter_by or len(cleaned) > limit:
            self.shortened += 1
        return middle_cut(cleaned, limit, shorter_by)

    def _spent(self) -> bool:
        if self._left > self._reserved:
            return False
        self.dropped += 1
        return True

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
            if self._spent():
                break
            name = self._name(key)
            if isinstance(item, str) and item and redaction.is_secret_name(name):
                self.redactions["secret"] += 1
                tidy[name] = "[redacted:secret]"
            else:
                tidy[name] = self._value(item, depth + 1)
        return tidy

    def _name(self, key: object) -> str:
        if type(key) is not str or len(key) > _NAME_CHARACTERS or not _is_harmless(key):
            return self.text(str(key), _NAME_CHARACTERS)
        self._left -= len(key)
        return key

    def _list(self, values: list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any], depth: int) -> list[Any]:
        tidy = []
        outer = self._reserved
        self._reserved = max(outer, self._left // _LIST_SHARE)
        for item in values:
            if self._spent():
                break
            tidy.append(self._value(item, depth + 1))
        self._reserved = outer
        return tidy


@lru_cache(maxsize=4_096)  # results have the same names again and again
def _is_harmless(name: str) -> bool:
    """Whether cleaning leaves this name as it is."""
    return name.isprintable() and redaction.clean(name, Counter()) == name


def excerpt(text: str) -> tuple[str, int]:
    """(at most READ_CHARACTERS of a text, by how many it became shorter).

    A cut must not hide from the patterns that something is a secret. So the beginning ends between two
    words; the end is kept from a whole line on, and not at all when a private key may begin before it.
    """
    if len(text) <= READ_CHARACTERS:
        return text, 0
    head = text[: READ_CHARACTERS - TAIL_CHARACTERS - _MARK_CHARACTERS]
    words_end = max(head.rfind(" "), head.rfind("\n"), head.rfind("\t"))
    if words_end > len(head) // 2:
        head = head[:words_end]
    line_start = text.find("\n", len(text) - TAIL_CHARACTERS) + 1
    unsafe = not line_start or text.find("PRIVATE KEY", max(0, len(head) - 80), line_start) >= 0
    tail = "" if unsafe else text[line_start:]
    read = head + _mark(len(text) - len(head) - len(tail)) + tail
    return read, len(text) - len(read)


def middle_cut(text: str, limit: int, shorter_by: int = 0) -> str:
    """The text with its middle left out when it is longer than `limit` characters; says how much.

    `shorter_by` is how many characters longer it was before.
    """
    if len(text) <= limit:
        return text
    mark = _mark(len(text) - limit + shorter_by)
    if limit <= len(mark) + 2:
        return text[:limit]
    kept = limit - len(mark)
    head = kept - kept // 3
    return text[:head] + mark + text[len(text) - (kept - head) :]


def _mark(left_out: int) -> str:
    return f"…[+{left_out:,} chars]…"


def dumps(value: object) -> str:
    """Compact JSON with readable characters; raises ValueError for a number that is not finite."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def fit(data: Any, room: int) -> Any:
    """The object or list, cut to at most `room` (2 or more) characters of JSON.

    A list keeps its beginning. The entries of an object share the room: small ones stay whole. A text loses
    its middle. Nothing is serialised more than twice per level of nesting.
    """
    cut = _cut(data, room)
    return type(data)() if cut is _NOTHING else cut


def _cut(value: Any, room: int) -> Any:
    """The value in at most `room` characters, or _NOTHING when nothing useful of it fits."""
    if len(dumps(value)) <= room:
        return value
    if isinstance(value, str):
        return _cut_text(value, room)
    if isinstance(value, list):
        return _cut_list(value, room)
    return _cut_object(value, room) if isinstance(value, dict) else _NOTHING


def _cut_text(text: str, room: int) -> Any:
    keep = min(len(text), room - 2)
    while keep >= _SHORTEST_TEXT:
        cut = middle_cut(text, keep)
        excess = len(dumps(cut)) - room
        if excess <= 0:
            return cut
        keep -= excess
    return _NOTHING


def _cut_list(values: list[Any], room: int) -> Any:
    kept: list[Any] = []
    used = 1  # the brackets, less the comma that the last value does not have
    for value in values:
        size = len(dumps(value)) + 1
        if used + size > room:
            part = _cut(value, room - used - 1) if used < room // 2 else _NOTHING
            if part is not _NOTHING:
                kept.append(part)
            break
        kept.append(value)
        used += size
    return kept or _NOTHING


def _cut_object(values: dict[str, Any], room: int) -> Any:
    names = {key: len(dumps(key)) + 2 for key in values}  # with colon and comma
    sizes = {key: names[key] + len(dumps(value)) for key, value in values.items()}
    left = room - 1
    considered: list[str] = []
    promised = 0
    for key, size in sizes.items():
        promised += min(size, _FAIR_SHARE)
        if promised > left:
            break
        considered.append(key)
    kept: dict[str, Any] = {}
    considered.sort(key=sizes.__getitem__)  # what small entries do not need is shared by the large ones
    for position, key in enumerate(considered):
        part = _cut(values[key], left // (len(considered) - position) - names[key])
        if part is not _NOTHING:
            kept[key] = part
            left -= names[key] + len(dumps(part))
    return {key: kept[key] for key in values if key in kept} or _NOTHING
