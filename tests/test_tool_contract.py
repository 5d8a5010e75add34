"""What the model is told about the tools, and what it is told when it gets them wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools import boundary
from tools.base import Result, ToolContext, tool
from tools.registry import TOOLS, find

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
BOOLEAN = {"type": "boolean"}
STRINGS = {"type": "array", "items": STRING}


def an_object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


TIME_RANGE = an_object(["start"], start=STRING, end=STRING)
EXPECTED_EFFECT = an_object(
    ["service_name", "metric", "comparison", "value", "within_seconds"],
    service_name=STRING,
    metric=STRING,
    comparison=one_of("below", "above"),
    value={"type": "number"},
    within_seconds=INTEGER,
)
CONTRACT = {
    "search_logs": an_object(
        ["query", "time_range"],
        query=STRING,
        time_range=TIME_RANGE,
        service=STRING,
        min_level=one_of("debug", "info", "warning", "error", "critical"),
        view=one_of("patterns", "lines", "histogram"),
        order=one_of("newest", "oldest"),
        limit=INTEGER,
        cursor=STRING,
    ),
    "get_metrics": an_object(
        ["service_name", "metric"],
        service_name=STRING,
        metric=STRING,
        time_range=TIME_RANGE,
        step_seconds=INTEGER,
        group_by=one_of("none", "instance", "version", "zone"),
        compare_to=one_of("none", "previous_period", "one_day_ago", "one_week_ago"),
    ),
    "list_recent_deployments": an_object(
        [],
        service=STRING,
        environment=STRING,
        since=STRING,
        kinds={
            "type": "array",
            "items": one_of("code", "config", "migration", "infrastructure", "feature_flag", "scale"),
        },
        include_diffstat=BOOLEAN,
        limit=INTEGER,
        cursor=STRING,
    ),
    "create_incident_ticket": an_object(
        ["title", "severity"],
        title=STRING,
        severity=one_of("sev1", "sev2", "sev3", "sev4"),
        summary=STRING,
        suspected_root_cause=STRING,
        evidence_ids=STRINGS,
        services=STRINGS,
    ),
    "restart_connection_pool": an_object(
        ["service_name", "mode", "reason", "expected_effect"],
        service_name=STRING,
        mode=one_of("terminate_idle_in_transaction", "drain_and_recycle", "terminate_all_of_service"),
        older_than_seconds=INTEGER,
        reason=STRING,
        evidence_ids=STRINGS,
        expected_effect=EXPECTED_EFFECT,
    ),
    "scale_service": an_object(
        ["service_name", "replicas", "reason", "expected_effect"],
        service_name=STRING,
        replicas=INTEGER,
        expected_current_replicas=INTEGER,
        reason=STRING,
        evidence_ids=STRINGS,
        expected_effect=EXPECTED_EFFECT,
    ),
    "revert_deployment": an_object(
        ["deployment_id", "reason", "expected_effect"],
        deployment_id=STRING,
        to_deployment_id=STRING,
        acknowledge_migration=BOOLEAN,
        reason=STRING,
        evidence_ids=STRINGS,
        expected_effect=EXPECTED_EFFECT,
    ),
}


def without_descriptions(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_descriptions(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key == "properties":
            kept[key] = {name: without_descriptions(item) for name, item in value.items()}
        elif key != "description":
            kept[key] = without_descriptions(value)
    return kept


def test_it_offers_the_seven_tools_of_the_contract() -> None:
    assert set(TOOLS) == set(CONTRACT)
    assert find("search_logs") is TOOLS["search_logs"]
    assert find("rm_rf") is None


@pytest.mark.parametrize("name", CONTRACT)
def test_it_derives_the_schema_of_the_contract_from_the_signature(name: str) -> None:
    definition = TOOLS[name].definition()
    assert list(definition) == ["name", "description", "input_schema"]
    assert json.loads(json.dumps(definition)) == definition
    assert without_descriptions(definition["input_schema"]) == CONTRACT[name]


@pytest.mark.parametrize("name", CONTRACT)
def test_it_sends_nothing_that_strict_tool_use_rejects(name: str) -> None:
    allowed = {"type", "description", "enum", "items", "properties", "required", "additionalProperties"}
    waiting: list[Any] = [TOOLS[name].input_schema]
    while waiting:
        node = waiting.pop()
        assert set(node) <= allowed
        waiting += [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]


@pytest.mark.parametrize("name", CONTRACT)
def test_it_explains_every_tool_in_more_than_a_word(name: str) -> None:
    assert len(TOOLS[name].description) > 150


def test_it_says_which_tools_change_what() -> None:
    effects = {name: tool.effect for name, tool in TOOLS.items()}
    assert effects == {
        "search_logs": "read",
        "get_metrics": "read",
        "list_recent_deployments": "read",
        "create_incident_ticket": "write",
        "restart_connection_pool": "destructive",
        "scale_service": "destructive",
        "revert_deployment": "destructive",
    }
    assert all(tool.idempotency == "key" for tool in TOOLS.values() if tool.effect != "read")


def test_its_version_changes_with_what_the_model_sees() -> None:
    def probe(context: ToolContext, *, word: str) -> Result:
        """Say a word."""
        return Result(word)

    build = tool(effect="read", describe=lambda arguments: "")
    first = build(probe).version
    assert first == build(probe).version
    assert len(first) == 64
    probe.__doc__ = "Say a word aloud."
    assert build(probe).version != first


def test_it_refuses_a_tool_that_could_not_be_shown_or_approved() -> None:
    def silent(context: ToolContext) -> Result:
        return Result("")

    def positional(context: ToolContext, word: str) -> Result:
        """Say a word."""
        return Result(word)

    def loud(context: ToolContext) -> Result:
        """Say it."""
        return Result("")

    with pytest.raises(TypeError, match="docstring"):
        tool(effect="read", describe=lambda arguments: "")(silent)
    with pytest.raises(TypeError, match="keyword-only"):
        tool(effect="read", describe=lambda arguments: "")(positional)
    with pytest.raises(TypeError, match="dry_run"):
        tool(effect="destructive", describe=lambda arguments: "")(loud)


RANGE = {"start": "now-1h"}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("search_logs", {"time_range": RANGE}, ["query is required"]),
        ("search_logs", {"query": "x"}, ["time_range is required", "start"]),
        ("search_logs", {"query": "x", "time_range": {}}, ["time_range.start is required"]),
        ("search_logs", {"query": 5, "time_range": RANGE}, ["query must be a string, not a number"]),
        ("search_logs", {"query": "x", "time_range": "1h"}, ["time_range must be an object, not a string"]),
        (
            "search_logs",
            {"query": "x", "time_range": RANGE, "view": "pattern"},
            ["view is 'pattern'", "patterns", "lines", "histogram"],
        ),
        (
            "search_logs",
            {"query": "x", "time_range": RANGE, "servce": "api"},
            ["servce is not an argument", "Did you mean service?"],
        ),
        ("search_logs", {"query": "x", "time_range": RANGE, "limit": "50"}, ["limit must be a whole number"]),
        ("search_logs", {"query": "x", "time_range": RANGE, "limit": True}, ["limit must be a whole number"]),
        ("get_metrics", {"service": "api", "metric": "x"}, ["service_name is required", "service_name?"]),
        ("list_recent_deployments", {"kinds": "code"}, ["kinds must be a list"]),
        ("list_recent_deployments", {"kinds": ["codes"]}, ["kinds.0 is 'codes'", "feature_flag"]),
        ("create_incident_ticket", {"title": "x", "severity": "high"}, ["severity is 'high'", "sev1"]),
        (
            "scale_service",
            {
                "service_name": "api",
                "replicas": 5.5,
                "reason": "x",
                "expected_effect": {"service_name": "api"},
            },
            ["replicas must be a whole number", "expected_effect.metric is required"],
        ),
    ],
)
def test_it_tells_the_model_how_to_put_wrong_arguments_right(
    name: str, arguments: dict[str, Any], words: list[str]
) -> None:
    sentence = boundary.invalid_arguments(TOOLS[name], arguments)
    for word in words:
        assert word in sentence
    assert "pydantic" not in sentence.lower()
    assert "Traceback" not in sentence


@pytest.mark.parametrize("arguments", [None, [], "query", 5, {"query": "x", "time_range": RANGE, 7: 1}])
def test_it_accepts_only_one_json_object(arguments: object) -> None:
    assert boundary.invalid_arguments(TOOLS["search_logs"], arguments)


def test_it_takes_null_for_what_may_be_left_out() -> None:
    arguments = {"query": "x", "time_range": RANGE, "service": None, "limit": None}
    assert boundary.invalid_arguments(TOOLS["search_logs"], arguments) == ""


def test_its_headlines_are_one_short_line_whatever_the_arguments() -> None:
    for one in TOOLS.values():
        for arguments in (
            {},
            {"query": "a\nb" * 500, "title": "t\n" * 900},
            {"time_range": 7, "kinds": [None]},
        ):
            line = one.headline(arguments)
            assert line
            assert "\n" not in line
            assert len(line) <= 200
    read = TOOLS["search_logs"].headline(
        {"query": '"connection timed out"', "service": "api", "time_range": {"start": "now-45m"}}
    )
    assert read == 'api "connection timed out", last 45m'


def test_its_headlines_hold_nothing_that_cannot_be_stored_or_shown() -> None:
    nasty = "a\ud800b\x00c\x1b[31md\x1b]0;t\x07e\u202ef\u200bg\x9bh\U000e0041"
    written = dict.fromkeys(("query", "title", "service_name", "deployment_id", "mode", "metric"), nasty)
    for one in TOOLS.values():
        line = one.headline(written)
        line.encode("utf-8")
        assert line.isprintable()
    assert TOOLS["search_logs"].headline({"query": nasty}) == 'all services "abcdefgh"'


@pytest.mark.parametrize("line", ["", "\x00\u200b", None, 7])
def test_a_headline_that_says_nothing_is_the_name(line: Any) -> None:
    def probe(context: ToolContext) -> Result:
        """Say a word."""
        return Result("")

    assert tool(effect="read", describe=lambda arguments: line)(probe).headline({}) == "probe"
