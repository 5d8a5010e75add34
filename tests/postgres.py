"""A private PostgreSQL for the length of one command.

    uv run python -m tests.postgres uv run pytest -m "anywhere or postgres or not (browser or server)"

Makes a cluster in a temporary folder from the system's own binaries, listening on loopback alone, runs the
command with DATABASE_URL set to it, stops and removes it, and ends with the command's status.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg


def binary(name: str) -> Path:
    """The newest installed one of PostgreSQL's own programs."""
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
    found = shutil.which(name)
    if candidates:
        return candidates[-1]
    if found:
        return Path(found)
    raise SystemExit(f"PostgreSQL's {name} is not installed: apt-get install postgresql")


class Cluster:
    """A private PostgreSQL in a folder of its own, on a free port of the loopback address."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._unprivileged: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            account = next(n for n in ("postgres", "nobody") if n in {u.pw_name for u in pwd.getpwall()})
            self._unprivileged = {"user": account}
            shutil.chown(folder, account)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"postgres://postgres@127.0.0.1:{self._port}/postgres"
        self._call("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync")

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        options = (
            f"-c listen_addresses=127.0.0.1 -p {self._port} -k {self._folder} "
            "-c fsync=off -c max_connections=200"
        )
        log = f"{self._folder}/log"
        self._call("pg_ctl", "-D", f"{self._folder}/data", "-w", "-s", "-o", options, "-l", log, "start")

    def stop(self) -> None:
        """End it at once, whoever is connected."""
        self._call("pg_ctl", "-D", f"{self._folder}/data", "-w", "-s", "-m", "immediate", "stop")

    def _call(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [binary(name), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            **self._unprivileged,
        )


@contextmanager
def private_cluster() -> Iterator[Cluster]:
    """A fresh cluster that has been started; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="agentops-postgres-") as folder:
        cluster = Cluster(folder)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def database_of(address: str, name: str) -> str:
    """The address of another database in the same cluster."""
    return urlsplit(address)._replace(path=f"/{name}").geturl()


def on_server(address: str, statement: str) -> None:
    """Run a statement that allows no transaction, such as CREATE DATABASE."""
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(statement.encode())


if __name__ == "__main__":
    with private_cluster() as cluster:
        environment = os.environ | {"DATABASE_URL": cluster.address}
        sys.exit(subprocess.run(sys.argv[1:], env=environment).returncode)
