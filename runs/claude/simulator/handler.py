"""HTTP for the simulator: routes, authentication, and answers with the timing and the faults asked for."""

from __future__ import annotations

import hashlib
import json
import logging
import select
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from runs.claude.simulator.accounting import segments, total_tokens
from runs.claude.simulator.brain import think
from runs.claude.simulator.catalogue import MODELS, find
from runs.claude.simulator.compose import build
from runs.claude.simulator.events import StreamEvent, error_event, stream_events
from runs.claude.simulator.faults import Fault
from runs.claude.simulator.history import check_messages
from runs.claude.simulator.reply import Reply
from runs.claude.simulator.signing import prefix_of
from runs.claude.simulator.validation import check_cache_markers, check_request
from runs.claude.simulator.wire import TYPE_OF_STATUS, ApiError, invalid

if TYPE_CHECKING:
    from runs.claude.simulator.server import Simulator

logger = logging.getLogger(__name__)
_MAX_BODY = 32 * 1024 * 1024
_STALL_SECONDS = 3600.0


class Handler(BaseHTTPRequestHandler):
    """One connection. Errors of the request become API errors; the client never sees a traceback."""

    protocol_version = "HTTP/1.1"
    server_version = "simulator"
    disable_nagle_algorithm = True

    @property
    def simulator(self) -> Simulator:
        found: Simulator = self.server.simulator  # type: ignore[attr-defined]
        return found

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the run's own trace shows every request."""

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _guarded(self, route: Any) -> None:
        self.request_id = _request_id(self.path.encode())
        self._begun = False
        try:
            body = self._body()
            self._authenticate()
            route(body)
        except ApiError as error:
            self._json(error.status, error.body(self.request_id))
        except ConnectionError:
            self.close_connection = True
        except Exception:
            logger.exception("the simulator could not answer")
            failure = ApiError(500, "api_error", "The simulator could not answer; its log has the reason.")
            if self._begun:
                self.close_connection = True  # half an answer cannot be turned into an error
            else:
                self._json(500, failure.body(self.request_id))

    def _body(self) -> bytes:
        length = int(self.headers.get("content-length") or 0)
        if length > _MAX_BODY:
            self.close_connection = True  # the rest of the body is still on its way
            raise ApiError(413, "request_too_large", "Request exceeds the maximum size of 32 MB")
        return self.rfile.read(length)

    def _authenticate(self) -> None:
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ").strip()
        self.account = bearer or self.headers.get("x-api-key", "").strip()
        if not self.account:
            raise ApiError(401, "authentication_error", "x-api-key header is required")
        if not self.headers.get("anthropic-version"):
            raise invalid("anthropic-version: header is required")

    def _get(self, _: bytes) -> None:
        address = urlsplit(self.path)
        if address.path == "/v1/models":
            self._json(200, _model_page(parse_qs(address.query)))
            return
        prefix, slash, name = address.path.rpartition("/")
        model = find(unquote(name)) if slash and prefix == "/v1/models" else None
        if model is None:
            raise ApiError(404, "not_found_error", f"Not found: {address.path}")
        self._json(200, model.as_info())

    def _post(self, raw: bytes) -> None:
        path = urlsplit(self.path).path
        if path not in {"/v1/messages", "/v1/messages/count_tokens"}:
            raise ApiError(404, "not_found_error", f"Not found: {path}")
        body = _parsed(raw)
        if path == "/v1/messages":
            self._messages(body)
            return
        check_request(body, counting=True)
        check_messages(body["messages"])
        prefix_of(body)
        self._json(200, {"input_tokens": total_tokens(body)})

    def _messages(self, body: Any) -> None:
        fault = self.simulator.take(body, self.headers.get("x-sim-fault", ""))
        self.request_id = _request_id(f"{len(self.simulator.requests)}:{body!r}".encode())
        if fault is not None and fault.kind == "status":
            self._refuse(fault)
            return
        model = check_request(body)
        check_messages(body["messages"])
        check_cache_markers(body)
        prompt = segments(body, self.account)
        if prompt[-1].total > model.max_input_tokens:
            raise invalid(f"prompt is too long: {prompt[-1].total} tokens > {model.max_input_tokens} maximum")
        prefix_of(body)
        answer = think(body)
        if fault is not None and fault.kind == "slow":
            self._stall(fault.number)
        reply = build(body, model, answer, self.simulator.cache.charge(prompt, model), fault)
        self._pause(reply, _first_token_seconds(reply))
        if body.get("stream"):
            self._stream(reply, fault)
        else:
            self._pause(reply, reply.output_tokens / _tokens_per_second(reply))
            self._json(200, reply.message())

    def _refuse(self, fault: Fault) -> None:
        status = int(fault.number)
        type = fault.options.get("type") or TYPE_OF_STATUS.get(status, "api_error")
        error = ApiError(status, type, f"Simulated {type}.", code=fault.options.get("code", ""))
        wait = fault.options.get("retry-after")
        self._json(status, error.body(self.request_id), {"retry-after": wait} if wait else {})

    def _stream(self, reply: Reply, fault: Fault | None) -> None:
        self._headers(200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"})
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, event in enumerate(stream_events(reply)):
            if fault is not None and fault.breaks_at(number) and self._break(fault):
                return
            self._pause(reply, event.tokens / _tokens_per_second(reply))
            self._send(event)
        self.wfile.write(b"0\r\n\r\n")

    def _break(self, fault: Fault) -> bool:
        """Do what the fault says at this event; True when the stream is over."""
        match fault.kind:
            case "drop":
                self.close_connection = True
                return True
            case "eof":
                self.wfile.write(b"0\r\n\r\n")
                return True
            case "error":
                self._send(error_event(fault.options.get("type", "overloaded_error"), self.request_id))
                self.wfile.write(b"0\r\n\r\n")
                return True
            case "stall":
                self._stall(float(fault.options.get("seconds", _STALL_SECONDS)))
        return False

    def _stall(self, seconds: float) -> None:
        """Send nothing, until the time is over, the client leaves, or the simulator stops."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.simulator.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError("the client left during a stall")

    def _pause(self, reply: Reply, seconds: float) -> None:
        self.simulator.wait(seconds * self.simulator.pace)

    def _send(self, event: StreamEvent) -> None:
        data = event.encoded()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _json(self, status: int, body: dict[str, Any], more: dict[str, str] | None = None) -> None:
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._headers(
            status, {"content-type": "application/json", "content-length": str(len(data)), **(more or {})}
        )
        self.end_headers()
        self.wfile.write(data)

    def _headers(self, status: int, more: dict[str, str]) -> None:
        self._begun = True
        self.send_response(status)
        self.send_header("request-id", self.request_id)
        self.send_header("anthropic-organization-id", "org_sim")
        for kind in ("requests", "tokens"):
            self.send_header(f"anthropic-ratelimit-{kind}-limit", "1000000")
            self.send_header(f"anthropic-ratelimit-{kind}-remaining", "999999")
        for name, value in more.items():
            self.send_header(name, value)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        raise invalid("The request body is not valid JSON.") from None


def _request_id(data: bytes) -> str:
    return "req_sim_" + hashlib.sha256(data).hexdigest()[:24]


def _model_page(query: dict[str, list[str]]) -> dict[str, Any]:
    """One page of `/v1/models`, newest first, with the API's cursors."""
    names = list(MODELS)
    after, before = query.get("after_id"), query.get("before_id")
    if after:
        names = names[names.index(after[0]) + 1 :] if after[0] in names else []
    if before:
        names = names[: names.index(before[0])] if before[0] in names else []
    wanted = (query.get("limit") or ["20"])[0]
    if not wanted.isdecimal():
        raise invalid("limit: Input should be a valid integer")
    limit = max(1, min(1000, int(wanted)))
    page = names[-limit:] if before else names[:limit]
    return {
        "data": [MODELS[name].as_info() for name in page],
        "has_more": len(page) < len(names),
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }


def _first_token_seconds(reply: Reply) -> float:
    return 0.35 + _spread(reply) * 0.3


def _tokens_per_second(reply: Reply) -> float:
    return 60 + _spread(reply) * 30


def _spread(reply: Reply) -> float:
    """A number from 0 to 1 that is the same for the same reply."""
    return int(reply.id[-4:], 16) / 0xFFFF
