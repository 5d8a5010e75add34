"""A function's signature as a JSON schema, and what is wrong with arguments in words for a model."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from tools import canonical

# Strict tool use of the Messages API rejects some of these, and none of them helps a model.
_DROPPED = ("title", "default")
_TYPE_NAMES = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}

_SCHEMA_NAMES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
}


def arguments_model(function: Callable[..., Any]) -> type[BaseModel]:
    """The pydantic model of everything but the first parameter, which is the context.

    Raises TypeError when a parameter is not keyword-only or has no annotation.
    """
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name not in hints:
            raise TypeError(f"{function.__name__}: {parameter.name} must be keyword-only and annotated")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    model: type[BaseModel] = create_model(function.__name__, __config__=config, **fields)
    return model


def input_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema as the Messages API wants it: no references, no null variants, `required` everywhere."""
    raw = model.model_json_schema()
    definitions = raw.pop("$defs", {})
    schema: dict[str, Any] = _plain(raw, definitions)
    schema.pop("description", None)
    return schema


def _plain(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        return _plain({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    variants = [item for item in node.get("anyOf", ()) if item != {"type": "null"}]
    if len(variants) == 1:
        rest = {key: value for key, value in node.items() if key != "anyOf"}
        return _plain({**variants[0], **rest}, definitions)
    kept = {key: value for key, value in node.items() if key not in _DROPPED}
    if kept.get("type") == "object" and "properties" in node:
        properties = {name: _plain(value, definitions) for name, value in node["properties"].items()}
        plain = {
            "type": "object",
            "additionalProperties": False,
            "required": list(node.get("required", [])),
            "properties": properties,
        }
        return plain | ({"description": kept["description"]} if "description" in kept else {})
    return {key: _plain(value, definitions) for key, value in kept.items()}


def problem(model: type[BaseModel], schema: Mapping[str, Any], arguments: object) -> str:
    """What is wrong with the arguments and how to put it right, or "" when they fit the schema."""
    if not isinstance(arguments, dict):
        return f"The arguments must be one JSON object, not {_kind(arguments)}. Send an object."
    if wrong := canonical.problem(arguments):
        return wrong
    try:
        model.model_validate(arguments)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=True)
        sentences = [_sentence(dict(item), schema) for item in problems[:5]]
        if len(problems) > 5:
            more = len(problems) - 5
            sentences.append(f"{more} more problem{'s' * (more > 1)}.")
        return " ".join(sentences)
    except Exception:
        return "The arguments could not be read. Send plain JSON values that fit the schema."
    return ""


def parsed(model: type[BaseModel], arguments: object) -> dict[str, Any]:
    """Valid arguments as keyword arguments of the tool function; a null counts as left out."""
    checked = model.model_validate(arguments)
    return {name: getattr(checked, name) for name in type(checked).model_fields}


def nearest(word: str, known: Sequence[str], count: int = 5) -> list[str]:
    """Up to `count` known names that look most like `word`, best first."""
    ranked = difflib.get_close_matches(word.lower(), known, n=count, cutoff=0.3)
    parts = {part for part in word.lower().replace("-", "_").split("_") if len(part) > 2}
    sharing = [name for name in known if name not in ranked and parts & set(name.split("_"))]
    return (ranked + sharing)[:count]


def _sentence(error: dict[str, Any], schema: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "arguments"
    kind = error["type"]
    if kind == "missing":
        return f"{path} is required{_expected(error['loc'], schema)}."
    if kind == "extra_forbidden":
        return _unknown_name(error["loc"], path, schema)
    if kind == "literal_error":
        return f"{path} is {_quoted(error['input'])}; allowed values are {error['ctx']['expected']}."
    if kind in _TYPE_NAMES:
        return f"{path} must be {_TYPE_NAMES[kind]}, not {_kind(error['input'])}."
    return f"{path} does not fit: {error['msg'].lower()}."


def _unknown_name(location: Sequence[Any], path: str, schema: Mapping[str, Any]) -> str:
    known = list(_at(location[:-1], schema).get("properties", {}))
    close = nearest(str(location[-1]), known, 1)
    guess = f" Did you mean {close[0]}?" if close else ""
    return f"{path[:80]} is not an argument here.{guess} Known names: {', '.join(known)}."


def _expected(location: Sequence[Any], schema: Mapping[str, Any]) -> str:
    node = _at(location, schema)
    if "enum" in node:
        return " (one of " + ", ".join(str(value) for value in node["enum"]) + ")"
    if "properties" in node:
        return f" (an object with {', '.join(node['properties'])})"
    return f" ({_SCHEMA_NAMES[node['type']]})" if node.get("type") in _SCHEMA_NAMES else ""


def _at(location: Sequence[Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    node: Mapping[str, Any] = schema
    for part in location:
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return node


def _kind(value: object) -> str:
    names: list[tuple[type, str]] = [
        (bool, "true or false"),
        (str, "a string"),
        (int, "a number"),
        (float, "a number"),
        (list, "a list"),
        (dict, "an object"),
    ]
    if value is None:
        return "null"
    return next((name for kind, name in names if isinstance(value, kind)), "something that is not JSON")


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
