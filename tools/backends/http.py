"""Reads JSON over HTTP for backends: bounded in time and size, and every fault has its kind."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ssl import SSLContext
from typing import Any, NoReturn

import httpx2

from tools.backends.deadline import Deadline
from tools.base import ErrorKind, ToolError

MOST_BYTES = 8_000_000  # of one answer, decompressed
MOST_SAID_BYTES = 20_000  # of an answer that refuses the request
BOMB_RATIO = 200  # JSON of real backends shrinks less than that
LONGEST_RETRY_AFTER = 86_400.0
_JSON = re.compile(r"application/([\w.-]+\+)?json\s*(;|$)", re.IGNORECASE)
_NO_RETRY = "An operator has to look at it; go on with another source."


class Client:
    """Reads from one backend. Thread-safe; keeps no connection open between two requests.

    `name` is what people and the model are told, `headers` may carry a token: neither addresses nor
    headers ever get into a message. Redirects are not followed, and no proxy or password of the machine's
    environment is used. Raises ToolError(not_configured) for an address that is not http:// or https://.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        verify: SSLContext | bool = True,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.name = name
        self._most_bytes = most_bytes
        if not re.match(r"https?://[^/]", base_url):
            self._fail("not_configured", f"has an address that cannot be used. {_NO_RETRY}")
        self._client = httpx2.Client(
            base_url=base_url,
            headers={**(headers or {}), "accept": "application/json", "accept-encoding": "gzip"},
            verify=verify,
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def close(self) -> None:
        """Release what the client holds."""
        self._client.close()

    def get(
        self, path: str, parameters: Mapping[str, str | int | float] | None = None, *, deadline_seconds: float
    ) -> Any:
        """The JSON that the backend answers to GET `path`.

        Raises ToolError within about `deadline_seconds`, however slowly the answer drips: unavailable,
        timeout, rate_limited (with the wait asked for), auth, not_configured, invalid_argument,
        too_expensive, bad_response. Text of the backend is in `data` only.
        """
        with Deadline(deadline_seconds) as deadline:
            try:
                status, headers, body = self._read(path, parameters, deadline)
            except httpx2.InvalidURL:
                self._fail("not_configured", f"has an address that cannot be used. {_NO_RETRY}")
            except (httpx2.HTTPError, httpx2.StreamError) as error:
                self._broken(error, deadline)
            if deadline.is_over:  # an answer of no stated length ends well when it is cut
                self._too_slow(deadline)
        if status >= 300:
            self._refused(status, headers, body)
        return self._parsed(headers, body)

    def _read(
        self, path: str, parameters: Mapping[str, str | int | float] | None, deadline: Deadline
    ) -> tuple[int, httpx2.Headers, bytes]:
        request = self._client.build_request(
            "GET",
            path,
            params=dict(parameters or {}),
            timeout=deadline.seconds,
            extensions={"trace": deadline.watch},
        )
        response = self._client.send(request, stream=True)
        deadline.answering = True
        try:
            limit = self._most_bytes if response.status_code < 300 else MOST_SAID_BYTES
            return response.status_code, response.headers, self._body(response, limit)
        finally:
            response.close()

    def _body(self, response: httpx2.Response, limit: int) -> bytes:
        """At most about `limit` decompressed bytes; more are an error, unless the request was refused."""
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip"):
            self._fail("bad_response", "answered in an encoding that was not asked for.", retryable=True)
        body = _Body(limit, compressed=encoding == "gzip")
        try:
            for chunk in response.iter_raw():
                body.add(chunk)
                if body.is_full:
                    break
        except zlib.error:
            self._fail("bad_response", "answered with something that is not gzip.", retryable=True)
        if body.is_full and response.status_code < 300:
            self._too_large(body)
        return bytes(body.content)

    def _too_large(self, body: _Body) -> NoReturn:
        if len(body.content) > BOMB_RATIO * body.consumed:
            self._fail("bad_response", "answered with something that only pretends to be small.")
        self._fail(
            "too_expensive",
            f"answered with more than {self._most_bytes:,} bytes. Ask for less: a shorter time range, one "
            "service, a larger step.",
        )

    def _parsed(self, headers: httpx2.Headers, body: bytes) -> Any:
        if not _JSON.match(headers.get("content-type", "")):
            self._fail("bad_response", "answered with something that is not JSON.", retryable=True)
        try:
            return _strict_json(body)
        except (ValueError, RecursionError):
            self._fail("bad_response", "answered with JSON that cannot be read.", retryable=True)

    def _refused(self, status: int, headers: httpx2.Headers, body: bytes) -> NoReturn:
        is_json = bool(_JSON.match(headers.get("content-type", "")))
        if status == 429:
            wait = retry_after(headers)
            self._fail("rate_limited", "is asked too often.", retryable=True, retry_after_s=wait)
        if status in (401, 403):
            self._fail("auth", f"does not accept our credentials ({status}). {_NO_RETRY}")
        if status < 400:
            self._fail("not_configured", f"sends us elsewhere ({status}): its address is wrong. {_NO_RETRY}")
        if status in (408, 504):
            self._fail("timeout", f"was too slow for itself ({status}). Ask for less.", retryable=True)
        if status >= 500:
            kind: ErrorKind = "unavailable" if is_json else "bad_response"
            wait = retry_after(headers)
            self._fail(kind, f"failed ({status}).", retryable=True, retry_after_s=wait)
        said = _said(body) if is_json else None
        raise ToolError(
            "invalid_argument",
            f"{self.name} refused the request ({status}). Change it.",
            data={} if said is None else {"backend_said": said},
        )

    def _broken(self, error: Exception, deadline: Deadline) -> NoReturn:
        """The connection, or what came over it, was not what HTTP promises."""
        if deadline.is_over or isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
            self._too_slow(deadline)
        if deadline.answering:
            self._fail("bad_response", "broke off in the middle of its answer.", retryable=True)
        if isinstance(error, httpx2.UnsupportedProtocol):
            self._fail("not_configured", f"has an address that cannot be used. {_NO_RETRY}")
        self._fail("unavailable", "cannot be reached.", retryable=True)

    def _too_slow(self, deadline: Deadline) -> NoReturn:
        said = f"did not answer completely within {deadline.seconds:g} s. Ask for less."
        self._fail("timeout", said, retryable=True)

    def _fail(
        self, kind: ErrorKind, what: str, *, retryable: bool = False, retry_after_s: float | None = None
    ) -> NoReturn:
        message = f"{self.name} {what}"
        raise ToolError(kind, message, retryable=retryable, retry_after_s=retry_after_s) from None


class _Body:
    """What was read of an answer, unpacked, never much more than `limit` bytes."""

    def __init__(self, limit: int, *, compressed: bool) -> None:
        self.content = bytearray()
        self.consumed = 0  # bytes that came over the wire for it
        self._limit = limit
        self._unpacker = zlib.decompressobj(wbits=31) if compressed else None

    @property
    def is_full(self) -> bool:
        return len(self.content) > self._limit

    def add(self, chunk: bytes) -> None:
        """Take in the next bytes. Raises zlib.error for what is not gzip."""
        unpacker = self._unpacker
        if unpacker is None:
            self.content += chunk
            self.consumed += len(chunk)
            return
        self.content += unpacker.decompress(chunk, max(1, self._limit + 1 - len(self.content)))
        self.consumed += len(chunk) - len(unpacker.unconsumed_tail)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, from 0 to a day; None when it asks for nothing readable.

    A date counts from the answer's own date, so that a clock that is wrong here or there does not matter.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,12}", text):
        return min(float(text), LONGEST_RETRY_AFTER)
    at = _date(text)
    if at is None:
        return None
    sent = _date(headers.get("date", "")) or datetime.now(UTC)
    return min(max(0.0, (at - sent).total_seconds()), LONGEST_RETRY_AFTER)


def _date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _said(body: bytes) -> Any:
    try:
        return _strict_json(body)
    except (ValueError, RecursionError):
        return None


def _strict_json(body: bytes) -> Any:
    """Raises ValueError for what is not UTF-8 or not JSON, and for numbers that are not finite."""
    return json.loads(body.decode("utf-8"), parse_constant=_not_finite, parse_float=_finite)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
