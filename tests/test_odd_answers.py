"""A Messages API that answers what no API should: it costs an attempt, never the run, and holds no thread."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import pytest

from runs.claude import Stopped, TurnFailed, connect, count_prompt, request_body, stream_turn
from runs.claude.progress import is_countable

CONFIG: dict[str, Any] = {
    "agent": "incident",
    "model": "claude-sonnet-5-5",
    "max_tokens": 16_000,
    "system": [{"type": "text", "text": "You investigate incidents."}],
    "tools": [],
    "thinking": {"type": "adaptive", "display": "summarized"},
    "effort": "medium",
}
QUESTION = {"role": "user", "content": [{"type": "text", "text": "api error rate is 34 %"}]}
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: "


@contextmanager
def answering(content_type: bytes, body: bytes, *, then: Callable[[], object] = bool) -> Iterator[Any]:
    """A client of a server that sends this, does that, and closes."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while (line := self.rfile.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            self.wfile.write(HEAD + content_type + b"\r\n\r\n" + body)
            then()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            with connect(api_key="k", base_url=f"http://127.0.0.1:{server.server_address[1]}") as client:
                yield client
        finally:
            server.shutdown()


def turn(
    *, usage: Any = None, start: Any = None, block: Any = None, more: Any = None, stop: Any = ""
) -> bytes:
    """A stream whose parts may be replaced."""
    counted = {"input_tokens": 100, "output_tokens": 1}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counted | (start or {}),
    }
    delta = more or {"type": "text_delta", "text": "All is well."}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block or {"type": "text", "text": ""}},
        *([{"type": "content_block_delta", "index": 0, "delta": delta}] if block is None else []),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop or "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 9} | (usage or {}),
        },
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


def ask(client: anthropic.Anthropic) -> Any:
    return stream_turn(
        client,
        request_body(CONFIG, [QUESTION], max_tokens=4_000),
        deadline_seconds=20,
        on_draft=lambda draft: None,
        should_stop=lambda: False,
    )


def test_without_oddities_it_is_a_turn() -> None:
    with answering(b"text/event-stream", turn()) as client:
        assert ask(client).text == "All is well."


@pytest.mark.parametrize(
    "body",
    [
        turn(usage={"output_tokens": "lots"}),
        turn(usage={"output_tokens": 10**20}),
        turn(start={"input_tokens": -5}),
        turn(start={"cache_creation": [1]}),
        turn(start={"iterations": 7}),
        turn(more={"type": "text_delta", "text": 7}),
        turn(block={"type": "tool_use", "id": 7, "name": "search_logs", "input": {}}, stop="tool_use"),
        turn(
            block={"type": "tool_use", "id": "toolu_1", "name": "search_logs", "input": [7]}, stop="tool_use"
        ),
        turn(stop={"reason": "none"}),
    ],
)
def test_what_cannot_be_booked_or_stored_is_asked_for_again(body: bytes) -> None:
    with answering(b"text/event-stream", body) as client, pytest.raises(TurnFailed) as caught:
        ask(client)
    assert (caught.value.action, caught.value.kind) == ("retry", "malformed_stream")
    assert caught.value.usage is None or is_countable(caught.value.usage)


def count(client: anthropic.Anthropic, *, deadline: float = 20, stop: bool = False) -> int:
    body = request_body(CONFIG, [QUESTION], max_tokens=1)
    del body["max_tokens"]
    return count_prompt(client, body, deadline_seconds=deadline, should_stop=lambda: stop)


def test_a_count_is_a_number_or_a_failure() -> None:
    with answering(b"application/json", b'{"input_tokens": 12}') as client:
        assert count(client) == 12
    for body in (b"[]", b"{{", b"{}", b'{"input_tokens": "many"}', b'{"input_tokens": -1}'):
        with answering(b"application/json", body) as client, pytest.raises(TurnFailed):
            count(client)


def test_a_count_that_does_not_come_is_let_go() -> None:
    over = threading.Event()
    with answering(b"application/json", b"", then=lambda: over.wait(60)) as client:
        with pytest.raises(TurnFailed) as caught:
            count(client, deadline=0.1)
        assert caught.value.kind == "deadline"
        with pytest.raises(Stopped):
            count(client, stop=True)
        over.set()
