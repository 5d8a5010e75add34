"""What an installation costs that has nothing to do: processor time of an idle worker and of an idle demo.

    uv run benchmarks/idle.py [--seconds 20]

Each process runs on fresh data until it has settled; then its own clock of processor time is read twice. The
last line is JSON: percent of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTLE_SECONDS = {"worker": 10, "demo": 35}  # the demo drives its first incident until a person is asked


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each one is watched")
    seconds = parser.parse_args().seconds
    found = {
        "idle_worker_cpu_percent": idle_percent(["worker"], seconds),
        "idle_demo_cpu_percent": idle_percent(["demo", "--port", "0"], seconds),
    }
    print(json.dumps(found))


def idle_percent(command: list[str], seconds: float) -> float:
    """Percent of a core that this command of manage.py uses once it has settled."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC", "DJANGO"))}
    with tempfile.TemporaryDirectory(prefix="agentops-idle-") as folder:
        environment = kept | {"AGENTOPS_DATA": folder}
        manage = [sys.executable, str(ROOT / "manage.py")]
        subprocess.run([*manage, "migrate", "-v0"], env=environment, check=True)
        process = subprocess.Popen([*manage, *command], env=environment, stdout=subprocess.DEVNULL)
        try:
            time.sleep(SETTLE_SECONDS[command[0]])
            before, began = processor_seconds(process.pid), time.monotonic()
            time.sleep(seconds)
            used = processor_seconds(process.pid) - before
            return round(100 * used / (time.monotonic() - began), 2)
        finally:
            process.terminate()
            process.wait()


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far, from /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
