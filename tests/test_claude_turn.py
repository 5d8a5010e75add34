"""One model turn over the real SDK and real HTTP: received completely, or not at all."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

import anthropic
import httpx2
import pytest

from runs.claude import Draft, Stopped, Turn, TurnFailed, connect, request_body, request_sha256, stream_turn
from runs.claude.errors import from_exception, retry_after, said
from runs.claude.progress import joined
from runs.claude.simulator import Simulator

CONFIG: dict[str, Any] = {
    "agent": "incident",
    "model": "claude-sonnet-5-5",
    "max_tokens": 16_000,
    "system": [{"type": "text", "text": "You investigate incidents. " * 120}],
    "tools": [
        {"name": "search_logs", "description": "Find log lines.", "input_schema": {"type": "object"}},
        {"name": "get_metrics", "description": "Read a metric.", "input_schema": {"type": "object"}},
        {"name": "list_recent_deployments", "description": "Changes.", "input_schema": {"type": "object"}},
    ],
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
    with connect(api_key="test-key", base_url=simulator.base_url, stall_seconds=5) as connected:
        yield connected


def ask(
    client: anthropic.Anthropic,
    body: dict[str, Any],
    *,
    fault: str = "",
    deadline: float = 10,
    on_draft: Callable[[Draft], None] = lambda draft: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Turn:
    if fault:
        client = client.with_options(default_headers={"x-sim-fault": fault})
    return stream_turn(client, body, deadline_seconds=deadline, on_draft=on_draft, should_stop=should_stop)


def first_body(**more: Any) -> dict[str, Any]:
    return request_body({**CONFIG, **more}, [QUESTION], max_tokens=4_000)


def replayed(turn: Turn) -> dict[str, Any]:
    return {"role": "assistant", "content": json.loads(turn.message)["content"]}


def results(turn: Turn, text: str = '{"status": "no_data", "summary": "nothing"}') -> dict[str, Any]:
    return {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": use.id, "content": text} for use in turn.tool_uses
        ],
    }


def test_it_returns_a_complete_turn(client: anthropic.Anthropic) -> None:
    turn = ask(client, first_body())

    message = json.loads(turn.message)
    assert turn.stop_reason == message["stop_reason"] == "tool_use"
    assert [use.name for use in turn.tool_uses] == ["search_logs", "list_recent_deployments", "get_metrics"]
    called = [block for block in message["content"] if block["type"] == "tool_use"]
    assert [json.loads(use.arguments) for use in turn.tool_uses] == [block["input"] for block in called]
    assert turn.reasoning == message["content"][0]["thinking"]
    assert turn.usage == message["usage"]
    assert turn.usage["output_tokens"] > turn.usage["output_tokens_details"]["thinking_tokens"] > 0
    assert turn.model == "claude-sonnet-5-5"
    assert turn.api_request_id.startswith("req_sim_")


def test_it_stores_what_can_be_sent_back_unchanged(client: anthropic.Anthropic, simulator: Simulator) -> None:
    first = ask(client, first_body())
    messages = [QUESTION, replayed(first), results(first)]
    body = request_body(CONFIG, messages, max_tokens=4_000)
    second = ask(client, body)

    assert second.message != first.message
    assert simulator.requests[1]["messages"] == body["messages"]
    assert simulator.requests[1]["messages"][0] == simulator.requests[0]["messages"][0]


def test_a_repeated_request_has_the_same_bytes_and_the_same_answer(
    client: anthropic.Anthropic, simulator: Simulator
) -> None:
    once, again = ask(client, first_body()), ask(client, first_body())

    assert json.dumps(simulator.requests[0]) == json.dumps(simulator.requests[1])
    assert json.loads(once.message)["content"] == json.loads(again.message)["content"]


def test_drafts_grow_while_the_turn_streams() -> None:
    drafts: list[Draft] = []
    with Simulator(pace=0.3) as simulator, connect(api_key="k", base_url=simulator.base_url) as client:
        turn = ask(client, first_body(), on_draft=drafts.append)

    assert len(drafts) >= 2
    assert all(turn.reasoning.startswith(draft.reasoning) for draft in drafts)
    assert [len(draft.reasoning) for draft in drafts] == sorted(len(draft.reasoning) for draft in drafts)


def test_it_names_the_tool_whose_call_is_being_written(client: anthropic.Anthropic) -> None:
    drafts: list[Draft] = []
    with pytest.raises(TurnFailed):
        # The stall keeps the stream inside the first call long enough for a draft.
        ask(
            client,
            first_body(),
            fault=f"stall {_event_of_first_call(client)}",
            deadline=0.6,
            on_draft=drafts.append,
        )

    assert drafts[-1].tool_name == "search_logs"


def _event_of_first_call(client: anthropic.Anthropic) -> int:
    with client.messages.stream(**first_body()) as stream:
        kinds = [event for event in stream if event.type.startswith(("message_", "content_block_"))]
    starts = [
        number
        for number, event in enumerate(kinds)
        if event.type == "content_block_start" and event.content_block.type == "tool_use"
    ]
    return starts[0] + 3  # the ping is not seen through the SDK, and one delta shall arrive


@pytest.mark.parametrize("error", [ValueError("mine"), httpx2.ReadTimeout("mine"), RuntimeError("mine")])
def test_an_error_of_the_callers_own_callback_is_not_taken_for_the_apis(
    client: anthropic.Anthropic, error: Exception
) -> None:
    def broken(draft: Draft) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        ask(client, first_body(), fault="stall 8", on_draft=broken)

    assert caught.value is error


def test_it_stops_when_asked_to_even_while_nothing_arrives(client: anthropic.Anthropic) -> None:
    answers = iter([False, False, True])

    with pytest.raises(Stopped) as stopped:
        ask(client, first_body(), fault="stall 8", should_stop=lambda: next(answers))

    assert stopped.value.usage is not None
    assert stopped.value.output_characters > 0
    assert stopped.value.api_request_id.startswith("req_sim_")


@pytest.mark.parametrize("fault", ["slow 30", "stall 8"])
def test_it_stops_before_the_first_byte_and_in_the_middle(client: anthropic.Anthropic, fault: str) -> None:
    started = time.monotonic()
    with pytest.raises(Stopped):
        ask(client, first_body(), fault=fault, should_stop=lambda: True)

    assert time.monotonic() - started < 4  # far below the client's own timeout


def test_it_stops_while_a_proxy_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with connect(api_key="k", stall_seconds=20) as client, pytest.raises(Stopped):
            ask(client, first_body(), should_stop=lambda: True)

    assert time.monotonic() - started < 10


def test_the_simulator_is_reached_past_the_proxies_of_the_environment(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with connect(api_key="k", base_url=simulator.base_url) as client:
        assert ask(client, first_body()).stop_reason == "tool_use"


def test_who_is_stopped_takes_nobody_else_along(client: anthropic.Anthropic) -> None:
    def turns(number: int) -> list[str]:
        ends = []
        for turn in range(6):
            is_stopped = (number + turn) % 2 == 0
            fault = ("slow 8", "stall 3")[turn % 2] if is_stopped else ""
            try:
                ends.append(
                    ask(client, first_body(), fault=fault, should_stop=partial(bool, is_stopped)).stop_reason
                )
            except Stopped:
                ends.append("stopped")
        return ends

    with ThreadPoolExecutor(6) as threads:
        ends = list(threads.map(turns, range(6)))

    assert all(set(end[number % 2 :: 2]) == {"stopped"} for number, end in enumerate(ends))
    assert all(set(end[1 - number % 2 :: 2]) == {"tool_use"} for number, end in enumerate(ends))


def test_a_stopped_turn_leaves_the_client_usable(client: anthropic.Anthropic) -> None:
    with pytest.raises(Stopped):
        ask(client, first_body(), fault="stall 8", should_stop=lambda: True)

    assert ask(client, first_body()).stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("fault", "action", "kind"),
    [
        ("status 400", "fail", "invalid_request"),
        ("status 401", "fail", "authentication"),
        ("status 402", "pause", "billing"),
        ("status 403", "fail", "permission"),
        ("status 404", "fail", "not_found"),
        ("status 408", "retry", "timeout"),
        ("status 409", "retry", "conflict"),
        ("status 413", "fail", "too_large"),
        ("status 418", "fail", "refused_request"),
        ("status 422", "fail", "refused_request"),
        ("status 429", "retry", "rate_limit"),
        ("status 429 code=ramp_limit_exceeded", "retry", "rate_limit"),
        ("status 429 code=enforced_spend_limit_reached", "pause", "spend_limit"),
        ("status 429 code=contract_spend_limit_reached", "pause", "spend_limit"),
        ("status 500", "retry", "api_error"),
        ("status 502", "retry", "unavailable"),
        ("status 503", "retry", "unavailable"),
        ("status 504", "retry", "timeout"),
        ("status 529", "retry", "overloaded"),
        ("status 599", "retry", "api_error"),
        ("error 0", "retry", "overloaded"),
        ("error 6", "retry", "overloaded"),
        ("error 6 type=api_error", "retry", "api_error"),
        ("error 6 type=rate_limit_error", "retry", "rate_limit"),
        ("error 6 type=invalid_request_error", "fail", "invalid_request"),
        ("error 6 type=authentication_error", "fail", "authentication"),
        ("error 6 type=billing_error", "pause", "billing"),
        ("error 6 type=something_new", "retry", "api_error"),
        ("drop 0", "retry", "connection_lost"),
        ("drop 6", "retry", "connection_lost"),
        ("eof 0", "retry", "truncated"),
        ("eof 6", "retry", "truncated"),
        ("bad_json", "retry", "invalid_tool_input"),
        ("bad_json cut", "retry", "invalid_tool_input"),
    ],
)
def test_every_failure_says_what_the_run_should_do(
    client: anthropic.Anthropic, simulator: Simulator, fault: str, action: str, kind: str
) -> None:
    with pytest.raises(TurnFailed) as caught:
        ask(client, first_body(), fault=fault)

    failure = caught.value
    assert (failure.action, failure.kind) == (action, kind)
    assert failure.sentence.endswith((".", '"'))
    assert len(simulator.requests) == 1  # the SDK did not try again on its own


def test_the_end_of_the_stream_without_its_last_event_is_no_turn(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**first_body()) as stream:
        seen = sum(event.type.startswith(("message_", "content_block_")) for event in stream)

    # Everything arrived but message_stop; the SDK itself calls this a complete message.
    with pytest.raises(TurnFailed) as caught:
        ask(client, first_body(), fault=f"eof {seen}")

    assert caught.value.kind == "truncated"


def test_what_was_lost_is_still_accounted_for(client: anthropic.Anthropic) -> None:
    with pytest.raises(TurnFailed) as caught:
        ask(client, first_body(), fault="drop 9")

    failure = caught.value
    assert failure.usage is not None
    assert failure.usage["cache_creation"]["ephemeral_1h_input_tokens"] > 500
    assert failure.output_characters > 20
    assert failure.api_request_id.startswith("req_sim_")


def test_a_silence_in_the_middle_of_a_turn_is_a_retry(simulator: Simulator) -> None:
    with (
        connect(api_key="k", base_url=simulator.base_url, stall_seconds=0.2) as client,
        pytest.raises(TurnFailed) as caught,
    ):
        ask(client, first_body(), fault="stall 5")

    assert (caught.value.action, caught.value.kind) == ("retry", "stalled")


def test_a_silence_before_the_first_byte_is_a_retry(simulator: Simulator) -> None:
    with (
        connect(api_key="k", base_url=simulator.base_url, stall_seconds=0.2) as client,
        pytest.raises(TurnFailed) as caught,
    ):
        ask(client, first_body(), fault="slow 30")

    assert (caught.value.action, caught.value.kind) == ("retry", "timeout")


@pytest.mark.parametrize("fault", ["slow 30", "stall 5"])
def test_a_turn_has_a_deadline_of_its_own(client: anthropic.Anthropic, fault: str) -> None:
    started = time.monotonic()
    with pytest.raises(TurnFailed) as caught:
        ask(client, first_body(), fault=fault, deadline=0.3)

    assert (caught.value.action, caught.value.kind) == ("retry", "deadline")
    assert time.monotonic() - started < 4  # far below the client's own timeout


def test_a_draft_that_cannot_be_stored_holds_no_deadline_back(client: anthropic.Anthropic) -> None:
    is_showing, may_go_on, shown = threading.Event(), threading.Event(), threading.Event()

    def show(draft: Draft) -> None:
        is_showing.set()
        may_go_on.wait(30)
        shown.set()

    with pytest.raises(TurnFailed) as caught:
        ask(client, first_body(), fault="stall 9", deadline=1, on_draft=show)

    assert caught.value.kind == "deadline"
    assert is_showing.is_set() and not shown.is_set(), "it is still being stored"
    may_go_on.set()


def test_a_server_that_is_not_there_is_a_retry() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with (
        connect(api_key="k", base_url=f"http://127.0.0.1:{port}") as client,
        pytest.raises(TurnFailed) as caught,
    ):
        ask(client, first_body())

    assert (caught.value.action, caught.value.kind) == ("retry", "unreachable")


def test_a_request_that_cannot_be_built_fails_the_run(client: anthropic.Anthropic) -> None:
    with pytest.raises(TurnFailed) as caught:
        ask(client, {**first_body(), "temperature": 0.5})

    assert (caught.value.action, caught.value.kind) == ("fail", "configuration")


def test_it_passes_on_how_long_to_wait(client: anthropic.Anthropic) -> None:
    with pytest.raises(TurnFailed) as caught:
        ask(client, first_body(), fault="status 429 retry-after=3600")

    assert caught.value.retry_after == 3600


def test_it_understands_every_form_of_retry_after() -> None:
    now = datetime(2026, 11, 22, 7, 0, tzinfo=UTC)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True)

    def wait(**headers: str) -> float | None:
        return retry_after(
            httpx2.Headers({name.replace("_", "-"): text for name, text in headers.items()}), now
        )

    assert wait() is None
    assert wait(retry_after="2") == 2
    assert wait(retry_after="0.5") == 0.5
    assert wait(retry_after=later) == 90
    assert wait(retry_after_ms="250", retry_after="9") == 0.25
    assert wait(retry_after="-5") == 0
    assert wait(retry_after="nan") is None
    assert wait(retry_after="soon") is None


@pytest.mark.parametrize(
    "message", ["You have reached your specified API usage limits.", "credit balance is too low"]
)
def test_a_spend_limit_without_a_code_pauses_the_run(message: str) -> None:
    response = httpx2.Response(400, request=httpx2.Request("POST", "http://api.test"))
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    error = anthropic.BadRequestError("400", response=response, body=body)

    assert from_exception(error).action == "pause"


def test_a_foreign_message_becomes_one_harmless_line() -> None:
    assert said("two\nlines\x1b[31m\u202e and a tail") == "two lines [31m and a tail"
    assert len(said("x" * 1000)) == 300


def test_unknown_stop_reasons_blocks_and_events_do_not_break_a_turn(client: anthropic.Anthropic) -> None:
    assert ask(client, first_body(), fault="stop_reason something_new").stop_reason == "something_new"
    assert ask(client, first_body(), fault="event something_new").stop_reason == "tool_use"
    turn = ask(client, first_body(), fault="block hologram")
    assert json.loads(turn.message)["content"][0]["type"] == "hologram"
    assert turn.tool_uses


def test_a_refusal_is_a_turn_with_its_details(client: anthropic.Anthropic) -> None:
    turn = ask(client, first_body(), fault="refusal")

    assert turn.stop_reason == "refusal"
    assert turn.stop_details is not None and turn.stop_details["category"] == "general_harms"
    assert turn.tool_uses == ()


def test_a_call_cut_by_the_output_limit_is_marked_by_its_stop_reason(client: anthropic.Anthropic) -> None:
    assert ask(client, first_body(), fault="max_tokens").stop_reason == "max_tokens"
    assert ask(client, first_body(), fault="max_tokens text").text


def test_a_paused_turn_is_continued_without_a_user_message(client: anthropic.Anthropic) -> None:
    paused = ask(client, first_body(), fault="pause_turn")
    body = request_body(CONFIG, [QUESTION, replayed(paused)], max_tokens=4_000)

    assert paused.stop_reason == "pause_turn"
    assert paused.tool_uses == ()
    assert ask(client, body).stop_reason in {"tool_use", "end_turn"}


def test_withheld_and_redacted_thinking_survive_the_round_trip(client: anthropic.Anthropic) -> None:
    omitted = ask(client, first_body(thinking={"type": "adaptive", "display": "omitted"}))
    redacted = ask(client, first_body(), fault="redacted")

    assert omitted.reasoning == redacted.reasoning == ""
    for turn, thinking in (
        (omitted, {"type": "adaptive", "display": "omitted"}),
        (redacted, CONFIG["thinking"]),
    ):
        config = {**CONFIG, "thinking": thinking}
        ask(client, request_body(config, [QUESTION, replayed(turn), results(turn)], max_tokens=4_000))


def test_text_for_the_database_has_no_character_it_refuses() -> None:
    assert joined(["one\x00", "", "two\ud800"]) == "one\ufffd\n\ntwo\ufffd"


def test_the_request_is_a_pure_function_of_its_inputs() -> None:
    before = json.dumps([CONFIG, QUESTION])
    body, again = first_body(), first_body()

    assert request_sha256(body) == request_sha256(again)
    assert json.dumps([CONFIG, QUESTION]) == before
    assert [tool["name"] for tool in body["tools"]] == [
        "get_metrics",
        "list_recent_deployments",
        "search_logs",
    ]
    assert body["system"][-1]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert body["cache_control"] == {"type": "ephemeral"}
    assert body["tool_choice"] == {"type": "auto"}
    assert "stream" not in body


def test_the_wrap_up_keeps_the_tools_in_the_request() -> None:
    body = request_body(CONFIG, [QUESTION], max_tokens=1_000, tool_choice="none")

    assert body["tool_choice"] == {"type": "none"}
    assert body["tools"] == first_body()["tools"]


def test_an_agent_without_tools_or_thinking_sends_none() -> None:
    body = request_body({**CONFIG, "tools": [], "thinking": {}, "effort": ""}, [QUESTION], max_tokens=10)

    assert not {"tools", "tool_choice", "thinking", "output_config"} & set(body)


def test_the_hash_sees_the_order_in_which_the_model_reads() -> None:
    one = {"messages": [{"a": 1, "b": 2}]}
    other = {"messages": [{"b": 2, "a": 1}]}

    assert request_sha256(one) != request_sha256(other)


def test_a_turn_with_many_results_gets_cache_markers_in_between() -> None:
    uses = [{"type": "tool_use", "id": f"t{n}", "name": "search_logs", "input": {}} for n in range(24)]
    answers = [{"type": "tool_result", "tool_use_id": f"t{n}", "content": "x"} for n in range(24)]
    messages = [QUESTION, {"role": "assistant", "content": uses}, {"role": "user", "content": answers}]
    body = request_body(CONFIG, messages, max_tokens=1_000)

    marked = [
        block for message in body["messages"] for block in message["content"] if "cache_control" in block
    ]
    assert len(marked) == 2
    assert not any("cache_control" in block for block in [*uses, *answers])
    few = request_body(CONFIG, [QUESTION, {"role": "assistant", "content": uses[:4]}], max_tokens=1_000)
    assert "cache_control" not in json.dumps(few["messages"])
