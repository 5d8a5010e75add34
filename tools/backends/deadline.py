"""A deadline for a whole exchange over a connection, however slowly its bytes drip."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class Deadline:
    """Cuts the connection of one request when the time is over.

    Timeouts of a socket start again with every byte, also while headers drip in.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = max(0.001, seconds)
        self.answering = False  # the headers of the answer have arrived
        self._until = time.monotonic() + self.seconds
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(self.seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until

    @property
    def left(self) -> float:
        """Seconds until it is over, never quite zero: what a socket takes as its timeout."""
        return max(0.001, self._until - time.monotonic())

    def hold(self, connection: socket.socket) -> None:
        """Cut this connection when the time is over; at once when it is over already."""
        with self._lock:
            self._socket = connection
        if self.is_over:
            self._cut()

    def watch(self, event: str, details: Mapping[str, Any]) -> None:
        """Called by the HTTP library: holds the socket of each new connection."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.hold(details["return_value"].get_extra_info("socket"))

    def _cut(self) -> None:
        with self._lock:
            if self._socket is not None:
                with suppress(OSError):  # closed already
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
