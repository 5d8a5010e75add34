"""Numbers that people enter: digits and a point, nothing else that a program would take for a number."""

from __future__ import annotations

import re
from decimal import Decimal

WRITTEN = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
WORDS = {"cost_usd": "cost", "tokens": "tokens", "tool_calls": "tool calls"}


def read_amount(text: str) -> Decimal | None:
    """The number that stands there, or None: no sign, exponent, digit group or digits of another script."""
    text = text.strip()
    return Decimal(text) if WRITTEN.fullmatch(text) else None


def quoted(text: str) -> str:
    """What somebody entered, to be shown in a sentence about it."""
    shown = " ".join(text.split())
    return f"“{shown[:40]}…”" if len(shown) > 40 else f"“{shown}”"


def alternatives(names: list[str]) -> str:
    """a; a or b; a, b or c."""
    return " or ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
