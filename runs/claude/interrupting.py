"""A blocked read of a response that another thread can end.

Closing a response from another thread does not wake a read that waits for the network; shutting its socket
down does. Before the first byte of the answer nobody outside of the connection pool knows which socket that
is, so the pool is given streams that say so while they are used.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2
import httpx2


class Interruption:
    """Whether what one thread is reading was ended by another one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: httpcore2.NetworkStream | None = None  # that the thread is waiting for now
        self._is_over = False
        self.error: BaseException | None = None

    def interrupt(self, error: BaseException) -> None:
        """End the read with this error, now or when it is next tried; nothing when all was read already."""
        with self._lock:
            if self._is_over or self.error is not None:
                return
            self.error = error
            if self._stream is not None:
                _shut_down(self._stream)

    def over(self) -> None:
        """All was read: from now on nothing is interrupted."""
        with self._lock:
            self._is_over = True

    @contextmanager
    def using(self, stream: httpcore2.NetworkStream) -> Iterator[None]:
        """Only within the block is this stream surely not used by another request."""
        with self._lock:
            if self.error is not None:
                raise httpcore2.ReadError("interrupted")
            self._stream = stream
        try:
            yield
        finally:
            with self._lock:
                self._stream = None


_of_this_thread = threading.local()


@contextmanager
def interruptible(interruption: Interruption) -> Iterator[None]:
    """Within the block, requests that this thread sends with a client made `to_interrupt` can be ended."""
    _of_this_thread.interruption = interruption
    try:
        yield
    finally:
        _of_this_thread.interruption = None
        interruption.over()


def to_interrupt(client: httpx2.Client) -> httpx2.Client:
    """The same client, whose reads can be interrupted, also through proxies of the environment.

    httpcore takes the network as an argument of its pools, but httpx does not hand one through: so it is put
    around what the pools have. `test_it_stops_before_the_first_byte` fails should that place move.
    """
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Network(pool._network_backend)
    return client


class _Network(httpcore2.NetworkBackend):
    def __init__(self, network: httpcore2.NetworkBackend) -> None:
        self._network = network

    def connect_tcp(self, *arguments: Any, **named: Any) -> httpcore2.NetworkStream:
        return _Stream(self._network.connect_tcp(*arguments, **named))

    def connect_unix_socket(self, *arguments: Any, **named: Any) -> httpcore2.NetworkStream:
        return _Stream(self._network.connect_unix_socket(*arguments, **named))

    def sleep(self, seconds: float) -> None:
        self._network.sleep(seconds)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._used(self._stream.read, max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._used(self._stream.write, buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def start_tls(self, *arguments: Any, **named: Any) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(*arguments, **named))

    def _used[Answer](self, use: Callable[..., Answer], *arguments: Any) -> Answer:
        interruption: Interruption | None = getattr(_of_this_thread, "interruption", None)
        if interruption is None:
            return use(*arguments)
        with interruption.using(self._stream):
            return use(*arguments)


def _shut_down(stream: httpcore2.NetworkStream) -> None:
    sock = stream.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
