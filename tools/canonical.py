"""Canonical JSON (RFC 8785), and which arguments have one: people approve bytes, so each value has one form.

Object names are sorted by their UTF-16 code units, nothing is written that need not be, text is not escaped
beyond what JSON demands, and numbers are written as ECMAScript writes them. What other programs would read as
another value is refused with a sentence: it could be shown as one thing and run as another.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

LARGEST = 2**53 - 1  # beyond it, programs that keep numbers as doubles take neighbours for the same
MAX_DEPTH = 64


class NotCanonical(ValueError):
    """This value has no canonical form; the sentence says where and what to do instead."""


def canonical(value: Any) -> str:
    """The canonical text of JSON data. Raises NotCanonical."""
    parts: list[str] = []
    _write(value, parts, "", 0)
    return "".join(parts)


def read(text: str) -> Any:
    """The data of a JSON text that has a canonical form. Raises NotCanonical, also for what is no JSON.

    Unlike json.loads it takes no object that names the same thing twice, and neither NaN nor Infinity.
    """
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
    except RecursionError:
        raise NotCanonical(_too_deep("")) from None
    except NotCanonical:
        raise
    except ValueError as error:
        raise NotCanonical(f"This is no JSON{_place(error)}.") from None
    canonical(value)
    return value


def problem(value: Any) -> str:
    """Why this data has no canonical form, or an empty text."""
    try:
        canonical(value)
    except NotCanonical as error:
        return str(error)
    return ""


def number_text(value: float) -> str:
    """A finite number as ECMAScript writes it: 1e21 is 1e+21, 4.50 is 4.5, 1.0 is 1, -0.0 is 0."""
    if value == 0:
        return "0"
    sign, digits_found, power = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(str(digit) for digit in digits_found)
    count = len(digits)
    assert isinstance(power, int)
    point = count + power  # where the point stands, counted from before the first digit
    if count <= point <= 21:
        text = digits + "0" * (point - count)
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        exponent = f"e{point - 1:+d}"
        text = (f"{digits[0]}.{digits[1:]}" if count > 1 else digits) + exponent
    return "-" + text if sign else text


def _write(value: Any, parts: list[str], path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotCanonical(_too_deep(path))
    if value is None or isinstance(value, bool):
        parts.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, str):
        parts.append(_text(value, path))
    elif isinstance(value, int | float):
        parts.append(_number(value, path))
    elif isinstance(value, dict):
        _write_object(value, parts, path, depth)
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            parts.append("," if index else "[")
            _write(child, parts, f"{path}[{index}]", depth + 1)
        parts.append("]" if value else "[]")
    else:
        raise NotCanonical(f"{_at(path)} is {type(value).__name__}, which JSON does not have.")


def _write_object(value: dict[Any, Any], parts: list[str], path: str, depth: int) -> None:
    names = [(_text(name, path), name) for name in value]
    for index, (written, name) in enumerate(sorted(names, key=lambda pair: pair[1].encode("utf-16-be"))):
        parts.append(("," if index else "{") + written + ":")
        _write(value[name], parts, f"{path}.{name[:40]}" if path else name[:40], depth + 1)
    parts.append("}" if value else "{}")


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise NotCanonical(f"{_at(path)} has a name that is no text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotCanonical(
            f"{_at(path)} holds half of a surrogate pair, which is no character. Leave it out."
        ) from None
    return json.dumps(value, ensure_ascii=False)


def _number(value: float, path: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):  # a large int has no float to ask about
        raise NotCanonical(f"{_at(path)} is not a finite number. JSON has none of these.")
    if abs(value) > LARGEST and value == int(value):
        raise NotCanonical(
            f"{_at(path)} is a number beyond {LARGEST}, of which programs keep only the first digits. "
            "Send a smaller one, or text where the tool takes text."
        )
    return str(value) if isinstance(value, int) else number_text(value)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise NotCanonical(f"“{_at(name[:40])}” stands in the same object twice. Leave one of them out.")
        found[name] = value
    return found


def _constant(word: str) -> Any:
    raise NotCanonical(f"{word} is not a finite number. JSON has none of these.")


def _place(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f" (line {error.lineno}, column {error.colno})"
    return ""


def _at(path: str) -> str:
    """Where in the arguments, at the beginning of a sentence."""
    shown = path if len(path) <= 120 else "…" + path[-119:]
    return shown.encode("utf-8", "replace").decode() or "The value"


def _too_deep(path: str) -> str:
    return f"{_at(path[:40])} is nested more than {MAX_DEPTH} levels deep. Send a flatter value."
