"""A thread that reads one streamed response, so that the caller never blocks on the network.

The caller has to notice a deadline or a stop request while the other side is silent, and its own
callbacks must stay on its own thread: they use its database connection.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anthropic

from tools import threads


@dataclass(frozen=True)
class Ended:
    """The last thing a reader says. `message` is the accumulated SDK message, None when none was started."""

    message: Any
    error: BaseException | None


class Reader:
    """Reads `client.messages.stream(**request)` on its own thread into a queue of SDK events."""

    def __init__(self, client: anthropic.Anthropic, request: Mapping[str, Any]) -> None:
        self.request_id = ""
        # A copy of the client costs more than reading a short answer: only one that retries needs it.
        self._client = client if client.max_retries == 0 else client.with_options(max_retries=0)
        self._request = request
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._abandoned = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._response: Any = None
        self._job = threads.start(partial(contextvars.copy_context().run, self._read))

    def events(self, timeout: float) -> Iterator[Any]:
        """What came in, Ended as the last one: at the end of the response, or after `timeout` seconds.

        Many at once, because handing each over to another thread costs more than reading it.
        """
        self._over.wait(max(0.0, timeout))
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._events.get_nowait()

    def abandon(self) -> None:
        """Stop reading and close the connection; the rest of the response is lost. Safe at any time."""
        self._abandoned.set()
        with self._lock:
            if self._response is not None:
                _cut(self._response)
        # A reader that still waits for the status line ends by its own timeout.
        self._job.wait(0.2, lambda: True)

    def _read(self) -> None:
        stream: Any = None
        error: BaseException | None = None
        try:
            with self._client.messages.stream(**self._request) as stream:
                self._opened(stream)
                for event in stream:
                    if self._abandoned.is_set():
                        break
                    self._events.put(event)
        except Exception as caught:
            error = caught
        finally:
            with self._lock:
                self._response = None
        self._events.put(Ended(_snapshot(stream), error))
        self._over.set()

    def _opened(self, stream: Any) -> None:
        self.request_id = stream.request_id or ""
        with self._lock:
            self._response = stream.response
            if self._abandoned.is_set():
                _cut(self._response)


def _snapshot(stream: Any) -> Any:
    try:
        return stream.current_message_snapshot if stream is not None else None
    except AssertionError:  # the SDK's way to say that no message was started
        return None


def _cut(response: Any) -> None:
    """Shut the socket down: closing a response from another thread does not wake a blocked read."""
    network_stream = response.extensions.get("network_stream")
    sock = network_stream.get_extra_info("socket") if network_stream is not None else None
    if sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
