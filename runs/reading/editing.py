"""A tool's arguments as fields of a form, made of its schema, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runs.models import Approval
from tools import canonical

PREFIX = "arg."
WHOLE = "everything"  # the only field of a tool whose schema is not known
LONG = 60  # characters from which a text gets several lines
MAX_DEPTH = 4
NUMBERS = {"integer": "a whole number", "number": "a number"}


@dataclass(frozen=True)
class Field:
    """One argument. `kind` is text, long, number, choice, yes_no, lines or json; `value` is what it shows."""

    name: str  # of the form: arg.expected_effect.value
    label: str
    kind: str
    value: str
    choices: tuple[str, ...]
    required: bool
    help: str
    was: str  # as it is asked now
    problem: str = ""

    @property
    def differs(self) -> bool:
        return self.value != self.was


def find_approval(pk: int) -> Approval | None:
    """The approval whose arguments are to be changed, with its run and call."""
    return Approval.objects.select_related("run", "step").filter(pk=pk).first()


def fields_of(approval: Approval, posted: Mapping[str, str] | None = None) -> tuple[Field, ...]:
    """The arguments of this approval as fields, filled with what was posted, else with what is asked."""
    fields = _fields(_schema(approval), json.loads(approval.arguments), PREFIX)
    if posted is None:
        return fields
    return tuple(replace(one, value=_lines(posted.get(one.name, ""))) for one in fields)


def arguments_from(approval: Approval, posted: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments that were posted, and what is wrong with single fields by name.

    A field that is as it was keeps exactly its value; an optional one that is empty is left out.
    """
    asked: dict[str, Any] = json.loads(approval.arguments)
    arguments: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field in fields_of(approval, posted):
        path = field.name.removeprefix(PREFIX).split(".")
        try:
            value = _at(asked, path) if field.value == field.was else _value(field)
        except ValueError as error:
            problems[field.name] = str(error)
            continue
        if field.name == PREFIX + WHOLE:
            arguments = value
        elif value is not None:
            _put(arguments, path, value)
    return arguments, problems


def _schema(approval: Approval) -> dict[str, Any]:
    """The schema that was frozen with the run, which is that of the tool the call was proposed for."""
    for definition in approval.run.frozen["tools"]:
        if definition["name"] == approval.step.name:
            schema: dict[str, Any] = definition["input_schema"]
            return schema
    return {}


def _fields(schema: dict[str, Any], arguments: Any, prefix: str, depth: int = 0) -> tuple[Field, ...]:
    properties = schema.get("properties") or {}
    if not properties:
        text = _text(arguments, "json")
        return (Field(PREFIX + WHOLE, "Arguments", "json", text, (), True, "One JSON object.", text),)
    given = arguments if isinstance(arguments, dict) else {}
    found: list[Field] = []
    for name, node in properties.items():
        if node.get("type") == "object" and node.get("properties") and depth < MAX_DEPTH:
            found += _fields(node, given.get(name), f"{prefix}{name}.", depth + 1)
            continue
        value = given.get(name)
        kind, choices = _kind(node, value)
        shown = "" if value is None else _text(value, kind)
        found.append(
            Field(
                name=f"{prefix}{name}",
                label=f"{prefix}{name}".removeprefix(PREFIX).replace(".", " → ").replace("_", " "),
                kind=kind,
                value=shown,
                choices=choices,
                required=name in schema.get("required", ()),
                help=str(node.get("description", "")),
                was=shown,
            )
        )
    return tuple(found)


def _kind(node: dict[str, Any], value: Any) -> tuple[str, tuple[str, ...]]:
    of = node.get("type")
    if node.get("enum") and all(isinstance(one, str) for one in node["enum"]):
        return "choice", tuple(node["enum"])
    if of == "boolean":
        return "yes_no", ()
    if of in NUMBERS:
        return of, ()
    if of == "array" and (node.get("items") or {}).get("type") == "string":
        return "lines", ()
    if of == "string":
        return ("long" if isinstance(value, str) and (len(value) > LONG or "\n" in value) else "text"), ()
    return "json", ()


def _text(value: Any, kind: str) -> str:
    if kind == "lines" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "\n".join(value)
    if kind in {"text", "long", "choice"} and isinstance(value, str):
        return _lines(value)
    return json.dumps(value, indent=2 if kind == "json" else None, ensure_ascii=False)


def _lines(text: str) -> str:
    """Browsers send a line break as two characters."""
    return text.replace("\r\n", "\n")


def _value(field: Field) -> Any:
    """What a changed field means; None when it is left out. Raises ValueError with a sentence."""
    text = field.value
    if not text.strip():
        if field.required:
            raise ValueError("Fill it in.")
        return None
    if field.kind in {"text", "long", "choice"}:
        return text
    if field.kind == "lines":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        value = canonical.read(text)
    except canonical.NotCanonical as error:
        wanted = NUMBERS.get(field.kind)
        raise ValueError(f"Give {wanted}." if wanted else str(error)) from error
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if field.kind in NUMBERS and (not number or (field.kind == "integer" and not isinstance(value, int))):
        raise ValueError(f"Give {NUMBERS[field.kind]}.")
    if field.name == PREFIX + WHOLE and not isinstance(value, dict):
        raise ValueError("Give one JSON object.")
    return value


def _at(arguments: dict[str, Any], path: list[str]) -> Any:
    if path == [WHOLE]:
        return arguments
    value: Any = arguments
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _put(arguments: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        arguments = arguments.setdefault(name, {})
    arguments[path[-1]] = value
