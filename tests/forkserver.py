"""Starts our commands as real processes, forked from one that has imported the libraries already.

Importing the Anthropic SDK, Django and the web server takes more than a second of processor time, and the
tests start a hundred processes. `Forkserver` is one process that has done it and knows nothing else: no
settings, no database, no thread. Each process that it forks gets its own environment, arguments and standard
streams, reads its own settings, and is killed, stopped and waited for like any other.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import importlib
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent

# What the commands import and what needs no settings.
PRELOADED = (
    *("anthropic", "genai_prices", "httpx2", "procrastinate.contrib.django", "psycopg", "psycopg_pool"),
    *("pydantic", "rich.live", "rich.markdown", "rich.table"),
    *("uvicorn", "uvicorn.protocols.http.h11_impl", "uvicorn.protocols.websockets.websockets_sansio_impl"),
    *("channels.auth", "channels.generic.websocket", "channels.routing", "channels.security.websocket"),
    *("django.contrib.auth.management", "django.contrib.staticfiles.finders", "django.core.handlers.asgi"),
    *("django.core.mail.backends.smtp", "django.core.management", "django.db.backends.postgresql.base"),
    *("django.db.backends.sqlite3.base", "django.db.migrations.executor", "django.forms"),
    *("django.middleware.csrf", "django.template.backends.django", "django.template.defaulttags"),
    *("django.template.loader_tags", "django.views.debug", "django.views.generic", "django_htmx.middleware"),
    *("servestatic.asgi", "servestatic.middleware"),
)


class Process:
    """A process that the server has forked: what tests use of `subprocess.Popen`."""

    def __init__(self, connection: socket.socket, output: IO[str] | None) -> None:
        self._connection = connection
        self._heard = b""
        self.stdout = output
        self.returncode: int | None = None
        self.pid = int(self._line(None))

    def _line(self, timeout: float | None) -> bytes:
        """The next line that its keeper says; TimeoutError when it says nothing for so many seconds."""
        self._connection.settimeout(timeout)
        while b"\n" not in self._heard:
            if not (said := self._connection.recv(64)):
                raise RuntimeError("the process was not kept: its keeper has gone")
            self._heard += said
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for the signal that ended it, as subprocess has it."""
        if self.returncode is None:
            try:
                self.returncode = int(self._line(timeout))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status when it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """All it still writes, once it has ended."""
        assert self.stdout
        self.wait(timeout)
        rest = self.stdout.read()
        self.stdout.close()
        return rest, None


class Forkserver:
    """One process with the libraries imported. It ends with the process that made it."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="agentops-fork-")
        path = f"{self._folder}/socket"
        self._path = path
        reading, self._alive = os.pipe()  # closed when we end, however that happens
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forkserver", path],
            cwd=ROOT,
            stdin=reading,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(reading)
        assert self._process.stdout and self._process.stdout.readline() == b"ready\n"
        self._process.stdout.close()

    def close(self) -> None:
        """End it; what it started goes on until somebody ends that."""
        os.close(self._alive)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, arguments: list[str], environment: dict[str, str], output: int, error: int) -> Process:
        """Fork a process that does what `python ARGUMENTS` would do, with these file descriptors."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(self._path)
        wanted = json.dumps({"arguments": arguments, "environment": environment}).encode()
        descriptors = array.array("i", [output, error])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
        connection.sendmsg([len(wanted).to_bytes(4, "big")], ancillary)
        connection.sendall(wanted)
        return Process(connection, None)

    def popen(self, arguments: list[str], environment: dict[str, str]) -> Process:
        """Start it with a pipe for what it writes, errors included."""
        reading, writing = os.pipe()
        process = self.start(arguments, environment, writing, writing)
        os.close(writing)
        process.stdout = os.fdopen(reading, encoding="utf-8", errors="replace")
        return process

    def run(
        self, arguments: list[str], environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end and return what it wrote, like `subprocess.run`."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
            process = self.start(arguments, environment, output.fileno(), error.fileno())
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            texts = []
            for file in (output, error):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return subprocess.CompletedProcess(arguments, status, *texts)


@functools.cache
def forkserver() -> Forkserver:
    """The server of this process, made on first use."""
    made = Forkserver()
    atexit.register(made.close)
    return made


# In the server.


def serve(path: str) -> None:
    """Fork what is asked for, until whoever started this has gone."""
    for name in PRELOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    alive = sys.stdin.buffer.raw
    while True:
        ready, _, _ = select.select([listener, alive], [], [])
        if alive in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            keep(connection)
        connection.close()


def keep(connection: socket.socket) -> None:
    """Fork the process, tell its number and, when it has ended, its status. Never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    descriptors = array.array("i")
    size, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_LEN(2 * descriptors.itemsize))
    for _, _, data in ancillary:
        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    wanted = json.loads(_exactly(connection, int.from_bytes(size, "big")))
    child = os.fork()
    if child == 0:
        connection.close()
        os._exit(become(wanted["arguments"], wanted["environment"], *descriptors))
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(b"%d\n" % child)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % status)
    os._exit(0)


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        received += connection.recv(size - len(received))
    return bytes(received)


def become(arguments: list[str], environment: dict[str, str], output: int, error: int) -> int:
    """Do what `python ARGUMENTS` does, and return its exit status."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (error, 2)):
        os.dup2(source, target)
    for descriptor in {null, output, error} - {0, 1, 2}:
        os.close(descriptor)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, "r"))  # type: ignore[arg-type]
    sys.stdout = _writer(1)
    sys.stderr = _writer(2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv = arguments if arguments[0] != "-m" else arguments[1:]
    status: Any = 0
    try:
        if arguments[0] == "-m":
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    _finish()
    return int(status or 0)


def _writer(descriptor: int) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", write_through=True)


def _finish() -> None:
    """What the interpreter does at its end."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):
            stream.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
