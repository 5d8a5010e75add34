"""The simulator as a server on the loopback address: started, stopped, scripted and inspected from tests."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from runs.claude.simulator.accounting import PromptCache
from runs.claude.simulator.faults import Fault, fault_for, parse_fault, parse_script
from runs.claude.simulator.handler import Handler
from runs.claude.simulator.wire import invalid

logger = logging.getLogger(__name__)


class Simulator:
    """A Messages API on 127.0.0.1. `port` 0 takes a free one.

    `pace` multiplies every wait: 1 feels like the real thing, 0 does not wait.
    `faults` is a script of things to do wrong (see faults.py); a wrong script raises ValueError.
    `clock` (seconds) decides when the prompt cache expires.
    `requests` holds the parsed body of every request to /v1/messages, in order of arrival.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        pace: float = 1.0,
        faults: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pace = pace
        self.cache = PromptCache(clock)
        self.requests: list[Any] = []
        self.closing = threading.Event()
        self._port = port
        self._rules = parse_script(faults)
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen, and return the base URL for the SDK. Raises OSError when the port is taken."""
        self.closing.clear()
        self._server = _Server(self, self._port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="simulator", daemon=True
        )
        self._thread.start()
        return self.base_url

    def stop(self) -> None:
        """Stop listening and cut the open connections. Harmless when it was not started."""
        self.closing.set()
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()
        self._server = self._thread = None

    @property
    def base_url(self) -> str:
        """Where it listens, for `connect`. Only while it runs."""
        if self._server is None:
            raise RuntimeError("The simulator is not running; call start() first.")
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def take(self, body: Any, header: str) -> Fault | None:
        """Record a request to /v1/messages; return its fault, from its header or the script."""
        with self._lock:
            self.requests.append(body)
            scripted = fault_for(self._rules, len(self.requests))
        try:
            return parse_fault(header) if header else scripted
        except ValueError as error:
            raise invalid(f"x-sim-fault: {error}") from error

    def wait(self, seconds: float) -> None:
        """Wait in real seconds, or until the simulator stops."""
        if seconds > 0:
            self.closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a kept-alive connection must not hold up the end of the process

    def __init__(self, simulator: Simulator, port: int) -> None:
        self.simulator = simulator
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a simulator connection ended early", exc_info=True)

    def hang_up(self) -> None:
        """End the connections that clients keep alive, and wait for their handlers."""
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=5)
