"""Cursors: where a result was cut, tied to the question it belongs to."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from tools.base import ToolError


def fingerprint(arguments: Mapping[str, Any]) -> str:
    """A short digest of the arguments that must stay the same from page to page."""
    text = json.dumps(arguments, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def make(position: int, of: str, **kept: float) -> str:
    """A cursor that continues at `position` of the question with this fingerprint."""
    text = json.dumps({"p": position, "q": of, **kept}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(cursor: str, of: str, *names: str) -> tuple[int, dict[str, float]]:
    """(position, what was kept). Raises ToolError(invalid_argument) for a cursor of another question."""
    try:
        padded = cursor.strip() + "=" * (-len(cursor.strip()) % 4)
        loaded = json.loads(base64.urlsafe_b64decode(padded))
        position, question = int(loaded["p"]), loaded["q"]
        kept = {name: float(loaded[name]) for name in names}
        if not all(math.isfinite(value) for value in kept.values()):
            raise ValueError("a time that is not finite")
    except (ValueError, KeyError, TypeError, OverflowError):
        raise ToolError(
            "invalid_argument", "cursor is not one that an earlier result gave. Leave it out to start again."
        ) from None
    if question != of or position < 0:
        raise ToolError(
            "invalid_argument",
            "cursor belongs to a call with other arguments. Repeat those exactly, or leave the cursor out.",
        )
    return position, kept
