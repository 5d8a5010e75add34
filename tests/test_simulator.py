"""The local Messages API: as strict as the real one, deterministic, and wrong only on request."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest

from runs.claude import connect, request_body
from runs.claude.simulator import Simulator
from runs.claude.simulator.faults import fault_for, parse_fault, parse_script

SYSTEM = [{"type": "text", "text": "You investigate incidents. " * 120}]
TOOLS = [
    {"name": "search_logs", "description": "Find log lines.", "input_schema": {"type": "object"}},
    {"name": "get_metrics", "description": "Read a metric.", "input_schema": {"type": "object"}},
]
CONFIG: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "system": SYSTEM,
    "tools": TOOLS,
    "thinking": {"type": "adaptive", "display": "summarized"},
    "effort": "medium",
}
QUESTION = {"role": "user", "content": [{"type": "text", "text": "api error rate is 34 %"}]}


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(pace=0) as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    with connect(api_key="test-key", base_url=simulator.base_url) as connected:
        yield connected


def body(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**request_body(CONFIG, messages or [QUESTION], max_tokens=4_000), **more}


def post(simulator: Simulator, content: Any, path: str = "/v1/messages", **headers: str) -> httpx2.Response:
    known = {"authorization": "Bearer test-key", "anthropic-version": "2026-10-21"}
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    with httpx2.Client(base_url=simulator.base_url, trust_env=False, verify=False) as http_client:
        return http_client.post(path, content=data, headers={**known, **headers})


def answer(simulator: Simulator, content: dict[str, Any], **headers: str) -> dict[str, Any]:
    response = post(simulator, content, **headers)
    assert response.status_code == 200, response.text
    parsed: dict[str, Any] = response.json()
    return parsed


def refusal(simulator: Simulator, content: Any, status: int = 400) -> str:
    response = post(simulator, content)
    assert response.status_code == status, response.text
    error = response.json()
    assert error["type"] == "error"
    assert error["request_id"] == response.headers["request-id"]
    return str(error["error"]["message"])


def turn_and_results(message: dict[str, Any], text: str = "{}") -> list[dict[str, Any]]:
    uses = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": use, "content": text} for use in uses]
    return [{"role": "assistant", "content": message["content"]}, {"role": "user", "content": results}]


# --- the interface the SDK uses


def test_it_answers_with_and_without_streaming_alike(client: anthropic.Anthropic) -> None:
    plain = client.messages.create(**body())
    with client.messages.stream(**body()) as stream:
        streamed = stream.get_final_message()

    assert plain.to_dict()["content"] == streamed.to_dict()["content"]
    assert plain.stop_reason == streamed.stop_reason == "tool_use"
    assert plain.id.startswith("msg_sim_")


def test_it_counts_tokens(client: anthropic.Anthropic, simulator: Simulator) -> None:
    request = body()
    counted = client.messages.count_tokens(
        model=request["model"], system=request["system"], tools=request["tools"], messages=request["messages"]
    )
    usage = answer(simulator, request)["usage"]

    assert counted.input_tokens == usage["input_tokens"] + usage["cache_creation_input_tokens"]


def test_it_lists_models_page_by_page(client: anthropic.Anthropic) -> None:
    names = [model.id for model in client.models.list(limit=5)]

    assert len(names) == len(set(names)) > 10
    assert "claude-sonnet-5-5" in names


def test_it_describes_what_a_model_accepts(client: anthropic.Anthropic) -> None:
    sonnet, haiku = client.models.retrieve("claude-sonnet-5-5"), client.models.retrieve("claude-haiku-4-5")

    assert sonnet.max_tokens == 128_000
    assert sonnet.capabilities is not None and haiku.capabilities is not None
    assert sonnet.capabilities.thinking.types.adaptive.supported
    assert not sonnet.capabilities.thinking.types.enabled.supported
    assert haiku.capabilities.thinking.types.enabled.supported
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("gpt-9")
    with pytest.raises(anthropic.BadRequestError, match="limit"):
        client.models.list(extra_query={"limit": "many"})


def test_it_records_the_requests_it_got(client: anthropic.Anthropic, simulator: Simulator) -> None:
    client.messages.create(**body())
    client.messages.count_tokens(model="claude-sonnet-5-5", messages=[{"role": "user", "content": "x"}])

    assert len(simulator.requests) == 1
    assert simulator.requests[0]["messages"] == [QUESTION]


def test_a_plain_string_is_a_text_block(simulator: Simulator) -> None:
    reply = answer(simulator, body({"role": "user", "content": "api error rate is 34 %"}))

    assert reply["stop_reason"] == "tool_use"


# --- what it refuses


@pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
def test_it_refuses_a_request_without_its_required_fields(simulator: Simulator, name: str) -> None:
    content = body()
    del content[name]

    assert refusal(simulator, content) == f"{name}: Field required"


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"model": "gpt-9"}, 404, "model: gpt-9"),
        ({"temperature": 1.0}, 400, "temperature"),
        ({"top_p": 0.9}, 400, "top_p"),
        ({"top_k": 5}, 400, "top_k"),
        ({"no_such_thing": 1}, 400, "Extra inputs"),
        ({"max_tokens": 0}, 400, "greater than or equal to 1"),
        ({"max_tokens": "many"}, 400, "valid integer"),
        ({"max_tokens": 200_000}, 400, "maximum allowed number of output tokens"),
        ({"model": "claude-haiku-4-5", "thinking": {"type": "disabled"}, "max_tokens": 65_000}, 400, "64000"),
        ({"messages": []}, 400, "at least one message"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, 400, 'must use the "user" role'),
        ({"messages": [{"role": "robot", "content": "hi"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "non-empty"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, 400, "non-empty"),
        ({"messages": [{"role": "user", "content": "hi", "name": "x"}]}, 400, "Extra inputs"),
        ({"messages": [QUESTION, {"role": "assistant", "content": "The cause is"}]}, 400, "prefill"),
        ({"system": [{"type": "text", "text": ""}]}, 400, "system.0"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, 400, "unique"),
        ({"tools": [{**TOOLS[0], "name": "not a name"}]}, 400, "pattern"),
        ({"tools": [{"name": "x"}]}, 400, "input_schema: Field required"),
        ({"tools": [{"name": "x", "input_schema": {"type": "string"}}]}, 400, "'object'"),
        ({"tool_choice": {"type": "any"}}, 400, "forces tool use"),
        ({"tool_choice": {"type": "tool", "name": "search_logs"}}, 400, "forces tool use"),
        ({"tool_choice": {"type": "perhaps"}}, 400, "tool_choice"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2_000}},
            400,
            "not supported by claude-sonnet-5-5",
        ),
        ({"thinking": {"type": "disabled"}}, 400, "not supported"),
        ({"thinking": {"type": "adaptive", "budget_tokens": 2_000}}, 400, "budget_tokens"),
        ({"thinking": {"type": "adaptive", "display": "loud"}}, 400, "display"),
        ({"model": "claude-haiku-4-5"}, 400, "'adaptive' is not supported by claude-haiku-4-5"),
        (
            {"model": "claude-haiku-4-5", "thinking": {"type": "enabled", "budget_tokens": 4_000}},
            400,
            "greater than `thinking.budget_tokens`",
        ),
        ({"output_config": {"effort": "heroic"}}, 400, "effort"),
        ({"cache_control": {"type": "ephemeral", "ttl": "2h"}}, 400, "cache_control"),
    ],
)
def test_it_refuses_what_the_api_refuses(
    simulator: Simulator, change: dict[str, Any], status: int, says: str
) -> None:
    assert says in refusal(simulator, {**body(), **change}, status)


def test_it_refuses_too_many_cache_markers(simulator: Simulator) -> None:
    marked = [{"type": "text", "text": f"part {n}", "cache_control": {"type": "ephemeral"}} for n in range(4)]

    assert "maximum of 4" in refusal(simulator, body({"role": "user", "content": marked}))


def test_longer_cache_lifetimes_come_first(simulator: Simulator) -> None:
    late = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    early = [{**SYSTEM[0], "cache_control": {"type": "ephemeral"}}]

    assert "must not come after" in refusal(
        simulator, body({"role": "user", "content": [late]}, system=early)
    )


def test_it_wants_a_key_and_a_version(simulator: Simulator) -> None:
    assert post(simulator, body(), authorization="").status_code == 401
    assert post(simulator, body(), **{"authorization": "", "x-api-key": "k"}).status_code == 200
    assert post(simulator, body(), **{"anthropic-version": ""}).status_code == 400


def test_it_refuses_what_is_no_request(simulator: Simulator) -> None:
    assert "JSON" in refusal(simulator, b"{nonsense")
    assert "JSON object" in refusal(simulator, b"[]")
    assert post(simulator, {}, path="/v1/nothing").status_code == 404


def test_it_refuses_a_body_beyond_32_megabytes(simulator: Simulator) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(simulator.base_url.rsplit(":", 1)[1]))
    connection.putrequest("POST", "/v1/messages")
    connection.putheader("authorization", "Bearer k")
    connection.putheader("content-length", str(33 * 1024 * 1024))
    connection.endheaders()
    response = connection.getresponse()

    assert response.status == 413
    assert json.loads(response.read())["error"]["type"] == "request_too_large"
    connection.close()


# --- tool calls and their results


def test_every_call_needs_its_result_at_once(simulator: Simulator) -> None:
    assistant, results = turn_and_results(answer(simulator, body()))
    (first, *others) = results["content"]
    more = {"type": "text", "text": "Please go on."}

    def sent(*messages: dict[str, Any]) -> str:
        return refusal(simulator, body(QUESTION, assistant, *messages))

    def user(*blocks: dict[str, Any]) -> dict[str, Any]:
        return {"role": "user", "content": list(blocks)}

    assert "without `tool_result` blocks" in sent(user(more))
    assert "without `tool_result` blocks" in sent(user(first))
    assert "without `tool_result` blocks" in sent(user(first), user(*others))
    assert "single result" in sent(user(first, first, *others))
    assert "unexpected `tool_use_id`" in sent(user(first, *others, {**first, "tool_use_id": "toolu_other"}))
    assert "must come first" in sent(user(more, first, *others))
    assert "unexpected `tool_use_id`" in refusal(simulator, body(QUESTION, user(first)))
    answer(simulator, body(QUESTION, assistant, user(first, *others, more)))


def test_ids_are_the_same_for_the_same_request_and_unique_in_a_conversation(simulator: Simulator) -> None:
    once, again = answer(simulator, body()), answer(simulator, body())
    second = answer(simulator, body(QUESTION, *turn_and_results(once)))

    assert once["id"] == again["id"] != second["id"]
    assert once["content"] == again["content"]
    ids = [block["id"] for message in (once, second) for block in message["content"] if "id" in block]
    assert len(ids) == len(set(ids))
    assert all(identifier.startswith("toolu_sim_") for identifier in ids)


# --- signatures: the history is append-only


@pytest.fixture
def conversation(simulator: Simulator) -> list[dict[str, Any]]:
    """A conversation of two signed turns."""
    first = [QUESTION, *turn_and_results(answer(simulator, body()))]
    return [*first, *turn_and_results(answer(simulator, body(*first)))]


def copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_an_unchanged_history_is_accepted_by_any_simulator(conversation: list[dict[str, Any]]) -> None:
    with Simulator(pace=0) as other:
        answer(other, body(*conversation))


def test_cache_markers_and_key_order_do_not_matter(
    simulator: Simulator, conversation: list[dict[str, Any]]
) -> None:
    moved = copied(conversation)
    moved[2]["content"][0]["cache_control"] = {"type": "ephemeral"}
    moved[1]["content"] = [dict(reversed(block.items())) for block in moved[1]["content"]]

    answer(simulator, body(*moved))


def test_every_change_of_what_came_before_is_noticed(
    simulator: Simulator, conversation: list[dict[str, Any]]
) -> None:
    bound = "bound to a different conversation"
    question, result, dropped = copied(conversation), copied(conversation), copied(conversation)
    question[0]["content"][0]["text"] += "!"
    result[2]["content"][0]["content"] = "[trimmed]"
    dropped[1]["content"] = [block for block in dropped[1]["content"] if block["type"] != "thinking"]

    assert f"messages.1.content.0: Invalid `signature` in `thinking` block. The block is {bound}" in refusal(
        simulator, body(*question)
    )
    assert bound in refusal(simulator, body(*result))
    assert "messages.3.content.0" in refusal(simulator, body(*dropped))
    assert bound in refusal(
        simulator, body(*conversation, system=[{"type": "text", "text": "Today is Monday."}])
    )
    assert bound in refusal(simulator, body(*conversation, tools=[TOOLS[0]]))
    # They are sent sorted; the order in the configuration is another prefix.
    assert bound in refusal(simulator, body(*conversation, tools=TOOLS))


def test_a_changed_thought_is_noticed(simulator: Simulator, conversation: list[dict[str, Any]]) -> None:
    changed, garbage = copied(conversation), copied(conversation)
    changed[1]["content"][0]["thinking"] += " And more."
    garbage[1]["content"][0]["signature"] = "not base64!"

    assert "was modified" in refusal(simulator, body(*changed))
    assert "Invalid `signature`" in refusal(simulator, body(*garbage))


def test_a_history_without_any_thinking_is_accepted(
    simulator: Simulator, conversation: list[dict[str, Any]]
) -> None:
    bare = copied(conversation)
    for message in bare:
        message["content"] = [block for block in message["content"] if block["type"] != "thinking"]

    answer(simulator, body(*bare))


def test_counting_tokens_checks_the_history_too(
    client: anthropic.Anthropic, conversation: list[dict[str, Any]]
) -> None:
    with pytest.raises(anthropic.BadRequestError, match="different conversation"):
        client.messages.count_tokens(
            model="claude-sonnet-5-5", messages=conversation, system=[{"type": "text", "text": "new"}]
        )


# --- tokens and the cache


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def usage_of(simulator: Simulator, *messages: dict[str, Any], **more: Any) -> tuple[int, int, int, int]:
    """(uncached, written for 5 minutes, written for an hour, read)."""
    usage = answer(simulator, body(*messages, **more))["usage"]
    split = usage["cache_creation"]
    assert usage["cache_creation_input_tokens"] == sum(split.values())
    return (
        usage["input_tokens"],
        split["ephemeral_5m_input_tokens"],
        split["ephemeral_1h_input_tokens"],
        usage["cache_read_input_tokens"],
    )


def test_what_was_written_is_read_by_the_next_turn(simulator: Simulator) -> None:
    first = answer(simulator, body())
    messages = [QUESTION, *turn_and_results(first, "x" * 400)]

    written = first["usage"]["cache_creation_input_tokens"]
    uncached, five, hour, read = usage_of(simulator, *messages)
    assert (uncached, hour, read) == (0, 0, written)
    assert five > 200  # two results of 400 bytes and the assistant's turn
    assert usage_of(simulator, *messages) == (0, 0, 0, written + five)


def test_two_fresh_simulators_account_alike() -> None:
    with Simulator(pace=0) as one, Simulator(pace=0) as other:
        assert usage_of(one, QUESTION) == usage_of(other, QUESTION)


def test_the_cache_forgets_after_five_minutes_and_an_hour() -> None:
    clock = Clock()
    with Simulator(pace=0, clock=clock) as simulator:
        _, five, hour, _ = usage_of(simulator)
        clock.now += 299
        assert usage_of(simulator) == (0, 0, 0, five + hour)  # and reading keeps it alive
        clock.now += 299
        assert usage_of(simulator) == (0, 0, 0, five + hour)
        clock.now += 301
        assert usage_of(simulator) == (0, five, 0, hour)
        clock.now += 3601
        assert usage_of(simulator) == (0, five, hour, 0)


def test_a_prefix_that_is_too_short_is_not_cached(simulator: Simulator) -> None:
    short = [{"type": "text", "text": "Be brief."}]
    uncached, *cached = usage_of(simulator, QUESTION, system=short)

    assert uncached > 0
    assert cached == [0, 0, 0]


def test_models_keys_and_settings_have_caches_of_their_own(simulator: Simulator) -> None:
    _, five, hour, _ = usage_of(simulator)

    assert usage_of(simulator, model="claude-opus-5-5") == (0, five, hour, 0)
    other_key = answer(simulator, body(), authorization="Bearer other")["usage"]
    assert other_key["cache_read_input_tokens"] == 0
    # tool_choice is part of the messages' cache, not of the one of tools and system.
    assert usage_of(simulator, tool_choice={"type": "none"}) == (0, five, 0, hour)


def test_a_cached_prefix_is_found_at_most_twenty_blocks_back(simulator: Simulator) -> None:
    def parts(count: int) -> dict[str, Any]:
        return {
            "role": "user",
            "content": [{"type": "text", "text": f"part {n} " * 20} for n in range(count)],
        }

    # Sent without the markers in between that request_body would add to so long a turn.
    _, five, hour, _ = usage_of(simulator, messages=[parts(5)])
    near = usage_of(simulator, messages=[parts(25)])
    assert near[3] == five + hour
    far = usage_of(simulator, messages=[parts(46)])
    assert far[3] == hour  # 21 blocks further: only the marker behind the system prompt is found


def test_thinking_is_part_of_the_output(simulator: Simulator) -> None:
    usage = answer(simulator, body())["usage"]
    hidden = answer(simulator, body(thinking={"type": "adaptive", "display": "omitted"}))

    assert usage["output_tokens"] > usage["output_tokens_details"]["thinking_tokens"] > 0
    assert hidden["content"][0]["thinking"] == ""
    assert hidden["usage"]["output_tokens"] == usage["output_tokens"]


def test_models_that_do_not_think_unasked_do_not(simulator: Simulator) -> None:
    content = body(model="claude-opus-4-6")
    del content["thinking"]

    assert [block["type"] for block in answer(simulator, content)["content"]] == ["tool_use", "tool_use"]


@pytest.mark.parametrize("limit", [1, 20, 60, 110])
def test_the_output_limit_cuts_wherever_it_is_reached(simulator: Simulator, limit: int) -> None:
    reply = answer(simulator, body(max_tokens=limit))

    assert reply["stop_reason"] == "max_tokens"
    assert reply["usage"]["output_tokens"] <= max(2, limit)


# --- faults


def test_a_script_gives_faults_to_requests_by_number() -> None:
    with Simulator(pace=0, faults="1: status 529 retry-after=1; 3-4: status 500") as simulator:
        responses = [post(simulator, body()) for _ in range(5)]

    assert [response.status_code for response in responses] == [529, 200, 500, 500, 200]
    assert responses[0].headers["retry-after"] == "1"
    assert responses[0].json()["error"]["type"] == "overloaded_error"


def test_a_header_gives_a_fault_to_one_request(simulator: Simulator) -> None:
    refused = post(simulator, body(), **{"x-sim-fault": "status 429 code=enforced_spend_limit_reached"})

    assert refused.status_code == 429
    assert refused.json()["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}
    assert post(simulator, body()).status_code == 200


def test_a_wrong_fault_in_a_header_is_refused(simulator: Simulator) -> None:
    response = post(simulator, body(), **{"x-sim-fault": "explode"})

    assert response.status_code == 400
    assert "Unknown fault" in response.json()["error"]["message"]


def test_a_star_stands_for_every_request() -> None:
    rules = parse_script("2: drop 3; *: slow 0.5")

    assert [getattr(fault_for(rules, number), "kind", "") for number in (1, 2, 3)] == ["slow", "drop", "slow"]
    assert fault_for(parse_script(""), 1) is None
    assert parse_fault("status:429").argument == "429"


@pytest.mark.parametrize(
    "script", ["status 529", "1: explode", "1: drop", "1: status x", "1: block", "1: drop 1 2"]
)
def test_a_wrong_script_says_what_is_wrong(script: str) -> None:
    with pytest.raises(ValueError, match=r"rule is|Unknown fault|needs"):
        Simulator(faults=script)


# --- the server


def test_it_starts_and_stops_again_and_again() -> None:
    simulator = Simulator(pace=0)
    simulator.stop()
    for _ in range(2):
        simulator.start()
        assert post(simulator, body()).status_code == 200
        simulator.stop()
    with pytest.raises(RuntimeError, match="not running"):
        _ = simulator.base_url


def test_it_says_when_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            Simulator(port=taken.getsockname()[1]).start()


def test_stopping_cuts_open_streams() -> None:
    simulator = Simulator(pace=0, faults="*: stall 3")
    simulator.start()
    began, ended = threading.Event(), threading.Event()

    def read() -> None:
        with connect(api_key="k", base_url=simulator.base_url) as client:
            try:
                with client.messages.stream(**body()) as stream:
                    for _ in stream:
                        began.set()
            except httpx2.HTTPError:
                pass
            finally:
                ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert began.wait(5)
    simulator.stop()
    assert ended.wait(5)
    reader.join()


def test_many_clients_are_served_at_once(client: anthropic.Anthropic, simulator: Simulator) -> None:
    replies: list[str] = []
    threads = [
        threading.Thread(target=lambda: replies.append(client.messages.create(**body()).id)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(replies) == 8
    assert len(set(replies)) == 1
