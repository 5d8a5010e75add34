"""What the brain says in one turn, before it becomes a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """A tool call the brain wants to make."""

    name: str
    input: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One turn: what it thinks, then either calls or a text for the person."""

    thinking: str
    text: str = ""
    calls: tuple[Call, ...] = ()
