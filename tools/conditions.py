"""Conditions on the arguments of a call, as people write them in rules: one comparison per line. Pure.

    service_name = "api"
    replicas <= 6
    mode in ["rolling", "one"]
    expected_effect.metric != "latency_p95_ms"

A name, an operator, a value in JSON. All lines have to hold. An argument that the call does not have, or that
cannot be compared (a text with `<`), holds nothing: then the rule does not match.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tools import canonical, schema
from tools.base import Tool

MOST_CONDITIONS = 20
MOST_CHARACTERS = 500
OPERATORS = ("=", "!=", "<=", ">=", "<", ">", "in", "not in")
EXACT = frozenset({"=", "in"})
LINE = re.compile(
    r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*(not\s+in\b|in\b|!=|<=|>=|==|=|<|>)\s*(.*)", re.DOTALL
)
ABSENT = object()
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


class BadCondition(ValueError):
    """The text is no condition; the message is a sentence that says what to change."""


@dataclass(frozen=True)
class Condition:
    """One comparison. `value` is the canonical JSON text of what the argument is compared with."""

    path: str
    operator: str
    value: str

    @cached_property
    def _wanted(self) -> Any:
        return json.loads(self.value)

    def __str__(self) -> str:
        return f"{self.path} {self.operator} {json.dumps(json.loads(self.value), ensure_ascii=False)}"

    def holds(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments fits it."""
        found = _at(arguments, self.path)
        if found is ABSENT:
            return False
        wanted = self._wanted
        match self.operator:
            case "=":
                return same(found, wanted)
            case "!=":
                return not same(found, wanted)
            case "in":
                return any(same(found, one) for one in wanted)
            case "not in":
                return not any(same(found, one) for one in wanted)
        return _is_number(found) and _compare(found, self.operator, wanted)


def parse(text: str) -> tuple[Condition, ...]:
    """The conditions of these lines, in a fixed order and each once. Raises BadCondition."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > MOST_CONDITIONS:
        raise BadCondition(f"At most {MOST_CONDITIONS} conditions are taken; there are {len(lines)}.")
    return arranged(_parsed(line) for line in lines)


def arranged(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Each once, in the order of their names: two texts that mean the same are the same rule."""
    return tuple(sorted(set(conditions), key=lambda one: (one.path, one.operator, one.value)))


def pins(arguments: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Conditions that exactly these arguments fit, and no others of the same tool."""
    return arranged(Condition(name, "=", _canonical(value)) for name, value in arguments.items())


def effective(tool: Tool, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments as the tool takes them, with its defaults: a rule cannot be avoided by leaving one out.

    Arguments that do not fit the tool stay as they are; such a call is refused anyway.
    """
    try:
        whole: dict[str, Any] = tool.arguments_model.model_validate(arguments).model_dump(mode="json")
    except Exception:  # whatever is wrong with them, they never run
        return arguments
    return whole


def problem(conditions: Iterable[Condition], tools: Iterable[Tool]) -> str:
    """Why one of these can never hold for any of these tools, as a sentence; "" when each can."""
    offered = list(tools)
    for condition in conditions:
        found = [_problem(condition, tool) for tool in offered]
        if found and all(found):
            return found[0] if len(found) == 1 else f"{condition}: no tool that this rule is for has that."
    return ""


def contradiction(conditions: Iterable[Condition]) -> str:
    """Why no argument at all fits all of these at once, as a sentence; "" when one may."""
    by_path: dict[str, list[Condition]] = {}
    for condition in conditions:
        by_path.setdefault(condition.path, []).append(condition)
    for path, of_path in by_path.items():
        exact = next((one for one in of_path if one.operator in EXACT), None)
        if exact is not None:
            wanted = json.loads(exact.value)
            values = wanted if exact.operator == "in" else [wanted]
            possible = any(all(_fits(one, path, value) for one in of_path) for value in values)
        else:
            possible = _is_open(of_path)
        if not possible:
            lines = " and ".join(map(str, of_path))
            return f"{lines} never hold together, so this rule would match no call."
    return ""


def _fits(condition: Condition, path: str, value: Any) -> bool:
    """Whether an argument with this value fits the condition."""
    arguments = value
    for name in reversed(path.split(".")):
        arguments = {name: arguments}
    return condition.holds(arguments)


def _is_open(bounds: Iterable[Condition]) -> bool:
    """Whether some number lies within all bounds; what is merely excluded leaves others."""
    lower = [(json.loads(one.value), one.operator == ">") for one in bounds if one.operator in {">", ">="}]
    upper = [(json.loads(one.value), one.operator == "<") for one in bounds if one.operator in {"<", "<="}]
    if not lower or not upper:
        return True
    (least, above), (most, below) = max(lower), min(upper, key=lambda one: (one[0], not one[1]))
    return bool(least < most or (least == most and not above and not below))


def same(one: Any, other: Any) -> bool:
    """Canonical equality of JSON values: 6 is 6.0, but true is not 1 and "6" is not 6."""
    if _is_number(one) and _is_number(other):
        return bool(one == other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _parsed(line: str) -> Condition:
    if len(line) > MOST_CHARACTERS:
        raise BadCondition(f"A condition has at most {MOST_CHARACTERS} characters: {line[:60]}…")
    match = LINE.fullmatch(line)
    if match is None:
        raise BadCondition(
            f"{line!r} is no condition. Write a name, one of {', '.join(OPERATORS)} and a value, such as "
            'replicas <= 6 or service_name = "api".'
        )
    path, operator, text = match[1], " ".join(match[2].split()).replace("==", "="), match[3]
    value = _value(line, path, operator, text)
    if operator in {"in", "not in"} and not (isinstance(value, list) and value):
        raise BadCondition(f"{line!r}: after {operator} comes a list that is not empty, such as [1, 2].")
    if operator in {"<", "<=", ">", ">="} and not _is_number(value):
        raise BadCondition(f"{line!r}: {operator} compares numbers. Use = or in for anything else.")
    return Condition(path, operator, _canonical(value))


def _value(line: str, path: str, operator: str, text: str) -> Any:
    """What is compared with: only what has one meaning, or the rule would say one thing and do another."""
    try:
        return canonical.read(text)
    except canonical.NotCanonical as error:
        sentence = str(error)
        if sentence.startswith("This is no JSON"):
            sentence = (
                f'{text!r} is no JSON value. Texts need quotes: {path} {operator} "{text}".'
                if re.fullmatch(r"[\w .:/-]+", text)
                else "the value has to be JSON, such as 6, true, null, a text in quotes or a list."
            )
        raise BadCondition(f"{line!r}: {sentence}") from error


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _at(arguments: Mapping[str, Any], path: str) -> Any:
    found: Any = arguments
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return ABSENT
        found = found[name]
    return found


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))  # a large int is no float


def _compare(found: Any, operator: str, wanted: Any) -> bool:
    return bool(
        found < wanted
        if operator == "<"
        else found <= wanted
        if operator == "<="
        else found > wanted
        if operator == ">"
        else found >= wanted
    )


def _problem(condition: Condition, tool: Tool) -> str:
    node: Mapping[str, Any] = tool.input_schema
    for name in condition.path.split("."):
        known = node.get("properties", {})
        if name not in known:
            close = schema.nearest(name, list(known), 1)
            guess = f" Did you mean {close[0]}?" if close else ""
            return f"{tool.name} has no argument {condition.path}.{guess}"
        node = known[name]
    wanted = json.loads(condition.value)
    for value in wanted if condition.operator in {"in", "not in"} else [wanted]:
        if value is not None and (sentence := _misfit(value, node)):
            return f"{condition}: {condition.path} of {tool.name} {sentence}"
    return ""


def _misfit(value: Any, node: Mapping[str, Any]) -> str:
    if "enum" in node and not any(same(value, one) for one in node["enum"]):
        return f"is one of {', '.join(map(str, node['enum']))}."
    types = JSON_TYPES.get(node.get("type", ""))
    is_one = types is None or (isinstance(value, types) and (bool in types or type(value) is not bool))
    is_whole = types == (int,) and isinstance(value, float) and value.is_integer()
    return "" if is_one or is_whole else f"is of type {node['type']}, so this can never hold."
