"""What the address of a live connection says, and what of it makes sense."""

from __future__ import annotations

from urllib.parse import parse_qs

MAX_ROWS = 100


def parameters_of(query_string: bytes) -> dict[str, str]:
    """Its parameters; none when they cannot be read. Of one that is given twice the last counts."""
    try:
        parsed = parse_qs(query_string.decode("utf-8", "replace")[:4000], max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in parsed.items()}


def number(text: str) -> int | None:
    """A number that could be that of a row, or None."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


def numbers(text: str) -> list[int]:
    """The keys in a list with commas, as many as a page has."""
    return [int(part) for part in text.split(",") if part.isdecimal() and len(part) < 19][:MAX_ROWS]
