"""A private PostgreSQL for the length of one command.

    uv run python -m tests.postgres uv run pytest -m "not browser and not server"

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


def binary(name: str) -> Path:
    """The newest installed one of PostgreSQL's own programs."""
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
    found = shutil.which(name)
    if candidates:
        return candidates[-1]
    if found:
        return Path(found)
    raise SystemExit(f"PostgreSQL's {name} is not installed: apt-get install postgresql")


@contextmanager
def private_cluster() -> Iterator[str]:
    """Address of a fresh cluster, as for DATABASE_URL; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="agentops-postgres-") as folder:
        unprivileged: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            account = next(n for n in ("postgres", "nobody") if n in {u.pw_name for u in pwd.getpwall()})
            unprivileged = {"user": account}
            shutil.chown(folder, account)
        data = f"{folder}/data"
        subprocess.run(
            [binary("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **unprivileged,
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off -c max_connections=200"
        control = [binary("pg_ctl"), "-D", data, "-w", "-s"]
        subprocess.run(
            [*control, "-o", options, "-l", f"{folder}/log", "start"], check=True, cwd=folder, **unprivileged
        )
        try:
            yield f"postgres://postgres@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd=folder, **unprivileged)


if __name__ == "__main__":
    with private_cluster() as address:
        sys.exit(subprocess.run(sys.argv[1:], env=os.environ | {"DATABASE_URL": address}).returncode)
