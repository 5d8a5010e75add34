"""A Messages API for benchmarks: scripted turns, without delay unless asked for, in a process of its own.

    python benchmarks/scripted.py

Prints its address and serves until it is ended. What it answers stands in the question of the conversation,
"Benchmark: 8 turns, 200 ms, read": so many turns that each call one tool, the last one a text, and each
answer begins so long after its request. The same request gets the same bytes.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from typing import Any

SCRIPT = re.compile(rb"Benchmark: (\d+) turns, (\d+) ms, (\w+)")
ANSWERED = re.compile(rb'"role": ?"assistant"')
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "read": ("list_recent_deployments", {"service": "api", "since": "now-24h", "limit": 5}),
    "gated": (
        "restart_connection_pool",
        {
            "service_name": "api",
            "mode": "terminate_idle_in_transaction",
            "reason": "Sessions that do nothing hold the pool.",
            "expected_effect": {
                "service_name": "api",
                "metric": "db_pool_in_use",
                "comparison": "below",
                "value": 1000,
                "within_seconds": 60,
            },
        },
    ),
}
SAID = "Looking at what was rolled out before the alert, because the errors began at about that time. " * 2
PIECE = 12  # characters in one delta, about what Claude sends
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"request-id: req_scripted\r\ntransfer-encoding: chunked\r\n\r\n"
)


def main() -> None:
    """Serve on a free port of the loopback address."""
    asyncio.run(serve())


async def serve() -> None:
    """Say where, then answer for ever."""
    server = await asyncio.start_server(converse, "127.0.0.1", 0, limit=2**26)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: request after request."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"(?i)content-length: (\d+)", head)
            body = await reader.readexactly(int(found[1]) if found else 0)
            script = SCRIPT.search(body)
            assert script, "the question does not say what to answer"
            turns, milliseconds, kind = int(script[1]), int(script[2]), script[3].decode()
            if milliseconds:
                await asyncio.sleep(milliseconds / 1000)
            number = len(ANSWERED.findall(body)) + 1
            writer.write(HEAD + stream(number, kind if number < turns else ""))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


@functools.lru_cache(maxsize=1000)
def stream(number: int, kind: str) -> bytes:
    """Turn `number` as server-sent events in one chunk; without a kind it calls nothing."""
    usage = {"input_tokens": 200, "cache_read_input_tokens": 3_000, "cache_creation_input_tokens": 400}
    message: dict[str, Any] = {
        "id": f"msg_scripted_{number:04d}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage | {"output_tokens": 1},
    }
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    events += block(0, {"type": "text", "text": ""}, "text_delta", "text", SAID)
    if kind:
        name, arguments = CALLS[kind]
        if "limit" in arguments:  # a call that only repeats what was answered would be refused
            arguments = arguments | {"limit": 5 + number % 40}
        call = {"type": "tool_use", "id": f"toolu_scripted_{number:04d}", "name": name, "input": {}}
        events += block(1, call, "input_json_delta", "partial_json", json.dumps(arguments))
    delta = {"stop_reason": "tool_use" if kind else "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 90}})
    events.append({"type": "message_stop"})
    sent = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    return f"{len(sent):x}\r\n".encode() + sent + b"\r\n0\r\n\r\n"


def block(index: int, opening: dict[str, Any], delta: str, field: str, text: str) -> list[dict[str, Any]]:
    """The events of one content block, its text in pieces."""
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    return [
        {"type": "content_block_start", "index": index, "content_block": opening},
        *(
            {"type": "content_block_delta", "index": index, "delta": {"type": delta, field: piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": index},
    ]


if __name__ == "__main__":
    main()
