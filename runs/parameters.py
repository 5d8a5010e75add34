"""What a browser says over its live connection, and in its address: anything may stand there."""

from __future__ import annotations

import json
from typing import NamedTuple
from urllib.parse import parse_qs

MAX_ROWS = 100


class Chosen(NamedTuple):
    """The step that a page shows; None: the live one."""

    step: int | None


def parameters_of(query_string: bytes) -> dict[str, str]:
    """The last value of each parameter; nothing of what cannot be read."""
    try:
        parsed = parse_qs(query_string.decode("utf-8", "replace")[:4000], max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in parsed.items()}


def number_of(text: str) -> int | None:
    """The number, when it is one of a row."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


def numbers_of(text: str) -> list[int]:
    """Numbers of rows, separated by commas; what is none is left out."""
    return [int(part) for part in text.split(",") if part.isdecimal() and len(part) < 19][:MAX_ROWS]


def step_of(message: str) -> Chosen | None:
    """What `{"step": 7}` chooses; None for anything that is no such message."""
    if len(message) > 200:
        return None
    try:
        step = json.loads(message)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    if step is None or (isinstance(step, int) and 0 < step < 10**9):
        return Chosen(step)
    return None
