"""What the Messages API refuses in a request, apart from its messages (history.py)."""

from __future__ import annotations

import re
from typing import Any

from runs.claude.simulator.catalogue import Model, find
from runs.claude.simulator.wire import ApiError, blocks, invalid

_KNOWN = {
    "model", "max_tokens", "messages", "system", "tools", "tool_choice", "thinking", "output_config",
    "cache_control", "metadata", "service_tier", "speed", "stop_sequences", "stream", "inference_geo",
    "diagnostics", "container",
}  # fmt: skip
_GONE = {"temperature", "top_p", "top_k"}
_EFFORTS = {"low", "medium", "high", "xhigh", "max"}
_DISPLAYS = {"summarized", "omitted"}
_TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_MAX_BREAKPOINTS = 4


def check_request(body: Any, *, counting: bool = False) -> Model:
    """The model of a valid request. Raises ApiError as the API would; `counting`: for count_tokens."""
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.")
    required = ("model", "messages") if counting else ("model", "max_tokens", "messages")
    for name in required:
        if name not in body:
            raise invalid(f"{name}: Field required")
    for name in body:
        if name in _GONE:
            raise invalid(f"{name}: This parameter is no longer supported. Remove it from the request.")
        if name not in _KNOWN:
            raise invalid(f"{name}: Extra inputs are not permitted")
    model = find(str(body["model"]))
    if model is None:
        raise ApiError(404, "not_found_error", f"model: {body['model']}")
    if not counting:
        _check_max_tokens(body["max_tokens"], model)
    _check_system(body.get("system"))
    _check_tools(body.get("tools") or [])
    _check_tool_choice(body.get("tool_choice"), body.get("tools") or [])
    _check_thinking(body.get("thinking"), body.get("max_tokens"), model)
    _check_output_config(body.get("output_config"))
    return model


def _check_max_tokens(value: Any, model: Model) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid("max_tokens: Input should be a valid integer")
    if value < 1:
        raise invalid("max_tokens: Input should be greater than or equal to 1")
    if value > model.max_tokens:
        raise invalid(
            f"max_tokens: {value} > {model.max_tokens}, which is the maximum allowed number of output "
            f"tokens for {model.id}"
        )


def _check_system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise invalid("system: Input should be a valid string or a list of text blocks")
    for index, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text" or not block.get("text"):
            raise invalid(f"system.{index}: text content blocks must be non-empty")


def _check_tools(tools: Any) -> None:
    if not isinstance(tools, list):
        raise invalid("tools: Input should be a valid list")
    names = []
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or not _TOOL_NAME.match(str(tool.get("name", ""))):
            raise invalid(f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
        schema = tool.get("input_schema")
        if not isinstance(schema, dict):
            raise invalid(f"tools.{index}.custom.input_schema: Field required")
        if schema.get("type") != "object":
            raise invalid(f"tools.{index}.custom.input_schema.type: Input should be 'object'")
        names.append(tool["name"])
    if len(set(names)) != len(names):
        raise invalid("tools: Tool names must be unique.")


def _check_tool_choice(choice: Any, tools: list[Any]) -> None:
    if choice is None:
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in {"auto", "any", "tool", "none"}:
        raise invalid("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    if not tools and kind != "none":
        raise invalid("tool_choice may only be specified while providing tools.")
    if kind in {"any", "tool"}:
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")


def _check_thinking(thinking: Any, max_tokens: Any, model: Model) -> None:
    if thinking is None:
        return
    form = thinking.get("type") if isinstance(thinking, dict) else None
    if form not in {"adaptive", "enabled", "disabled", "between_tools"}:
        raise invalid("thinking.type: Input should be 'adaptive', 'enabled', 'disabled' or 'between_tools'")
    if form not in model.thinking:
        accepted = ", ".join(f"'{name}'" for name in sorted(model.thinking))
        raise invalid(f"thinking.type: '{form}' is not supported by {model.id}. Supported: {accepted}.")
    if thinking.get("display", "summarized") not in _DISPLAYS:
        raise invalid("thinking.display: Input should be 'summarized' or 'omitted'")
    budget = thinking.get("budget_tokens")
    if form == "enabled":
        if not isinstance(budget, int) or budget < 1024:
            raise invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if isinstance(max_tokens, int) and budget >= max_tokens:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
    elif budget is not None:
        raise invalid(f"thinking.{form}.budget_tokens: Extra inputs are not permitted")


def _check_output_config(config: Any) -> None:
    if config is None:
        return
    if not isinstance(config, dict):
        raise invalid("output_config: Input should be an object")
    if "effort" in config and config["effort"] not in _EFFORTS:
        raise invalid("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")


def check_cache_markers(body: dict[str, Any]) -> None:
    """At most four breakpoints, longer lifetimes first, none on blocks that cannot carry one."""
    markers = [body["cache_control"]] if body.get("cache_control") else []
    placed = [
        *((f"tools.{index}", tool) for index, tool in enumerate(body.get("tools") or [])),
        *((f"system.{index}", block) for index, block in enumerate(blocks(body.get("system")))),
        *(
            (f"messages.{number}.content.{index}", block)
            for number, message in enumerate(body["messages"])
            for index, block in enumerate(blocks(message["content"]))
        ),
    ]
    ordered = []
    for place, block in placed:
        marker = block.get("cache_control")
        if marker is None:
            continue
        if block.get("type") in {"thinking", "redacted_thinking"}:
            raise invalid(f"{place}.cache_control: Extra inputs are not permitted")
        if block.get("text") == "":
            raise invalid(f"{place}: cache_control cannot be set for empty text blocks")
        ordered.append(marker)
    for marker in [*ordered, *markers]:
        if marker.get("type") != "ephemeral" or marker.get("ttl", "5m") not in {"5m", "1h"}:
            raise invalid("cache_control: Input should be {'type': 'ephemeral', 'ttl': '5m' | '1h'}")
    if len(ordered) + len(markers) > _MAX_BREAKPOINTS:
        raise invalid(
            f"A maximum of {_MAX_BREAKPOINTS} blocks with cache_control may be provided. "
            f"Found {len(ordered) + len(markers)}."
        )
    lifetimes = [marker.get("ttl", "5m") for marker in [*ordered, *markers]]
    if lifetimes != sorted(lifetimes, key=["1h", "5m"].index):
        raise invalid("cache_control: a ttl='1h' block must not come after a ttl='5m' block")
