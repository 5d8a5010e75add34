"""What the durable loop costs beside a plain loop over the SDK, and how fast it wakes and recovers.

    uv run benchmarks/loop.py [--only overhead,wall,approve,takeover] [--database URL]

Both loops talk to the same scripted Messages server, send the same streamed requests and call the same
tools. Everything listens on the loopback address, lives in a temporary folder and is ended by its id; it
takes two to four minutes. With --database (an empty PostgreSQL) everything but the bytes written is measured
there. The last line is one JSON object:

overhead_8, overhead_40  time per turn beside the plain loop, runs of 8 and of 40 turns (ms_*: milliseconds)
write_growth             bytes written by a run of 40 turns beside one of 8
wall_50                  50 runs at once in one worker beside 50 plain loops in threads, model latency 200 ms
wall_200, rss_200_mb     seconds for 200 runs at once in one worker, its largest memory
cpu_ms_*                 processor time per turn, of the worker and of the plain loops
approve_to_start_ms      from the decision in one process to the committed START in an idle worker; median
takeover_s               from kill -9 of a worker with 20 runs until all of them go on in another
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
UNWANTED = ("ANTHROPIC", "DATABASE", "DJANGO", "AGENTOPS")
TURNS = 8
LATENCY = 200  # milliseconds
LONGEST = 170.0  # seconds for one part
BUSY = (50, 200)  # runs at once
PARTS = ("overhead", "wall", "approve", "takeover")


class Installation:
    """A fresh folder, or an empty database, that talks to the scripted server."""

    def __init__(self, folder: Path, server: str, database: str) -> None:
        folder.mkdir()
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(UNWANTED)} | {
            "AGENTOPS_DATA": str(folder),
            "AGENTOPS_PACE": "0",
            "AGENTOPS_COOLING_OFF_SECONDS": "0",  # how soon it starts, not how long it could be undone
            "ANTHROPIC_API_KEY": "benchmark",
            "ANTHROPIC_BASE_URL": server,
            "DATABASE_URL": database or f"sqlite:///{folder}/agentops.sqlite3",
            "DJANGO_SETTINGS_MODULE": "agentops.settings",
            "PYTHONUNBUFFERED": "1",
        }
        self._run("manage.py", "migrate", "-v", "0")
        if database:
            self._run("manage.py", "flush", "--no-input", "-v", "0")

    def part(self, *words: object) -> dict[str, Any]:
        """The figures of one part, from a process of its own."""
        said = self._run("-m", "benchmarks.loop_parts", *map(str, words))
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LONGEST,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed")
        return done.stdout

    @contextmanager
    def worker(self, concurrency: int) -> Iterator[subprocess.Popen[str]]:
        """A worker process that has begun to look for runs; ended with the block."""
        arguments = [sys.executable, "manage.py", "worker", "--concurrency", str(concurrency)]
        with subprocess.Popen(
            arguments, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout and "drives up to" in process.stdout.readline()
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


@contextmanager
def scripted_server() -> Iterator[str]:
    """The address of a scripted Messages API in a process of its own."""
    arguments = [sys.executable, "benchmarks/scripted.py"]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def measure_wall(place: Installation) -> dict[str, float]:
    """Many runs at once in one worker, beside as many threads with a plain loop each."""
    figures: dict[str, float] = {}
    for runs in BUSY:
        ids = place.part("queue", runs, TURNS, LATENCY, "read")["ids"]
        with place.worker(runs) as worker:
            process = psutil.Process(worker.pid)
            before = sum(process.cpu_times()[:2])
            ended = place.part("ended", min(ids))
            cpu = sum(process.cpu_times()[:2]) - before
            figures[f"rss_{runs}_mb"] = round(peak_rss(worker.pid) / 1e6)
        plain = place.part("plain", runs, TURNS, LATENCY)
        figures[f"seconds_{runs}"] = round(ended["wall"], 2)
        figures[f"plain_seconds_{runs}"] = round(plain["wall"], 2)
        figures[f"cpu_ms_{runs}"] = round(cpu / runs / TURNS * 1e3, 1)
        figures[f"plain_cpu_ms_{runs}"] = round(plain["cpu_ms_per_turn"], 1)
        figures[f"plain_rss_{runs}_mb"] = round(plain["rss_mb"])
    figures["wall_50"] = round(figures["seconds_50"] / figures["plain_seconds_50"], 2)
    figures["wall_200"] = figures["seconds_200"]
    return figures


def peak_rss(pid: int) -> int:
    """The most memory this process has had, in bytes; what it has now where the system keeps no peak."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return int(psutil.Process(pid).memory_info().rss)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure_approval(place: Installation) -> dict[str, float]:
    """How soon an approved call starts in a worker that has nothing to do."""
    with place.worker(4):
        return place.part("approve")


def measure_takeover(place: Installation) -> dict[str, float]:
    """Kill a worker in the middle of 20 runs, with another one beside it."""
    runs = 20
    ids = place.part("queue", runs, TURNS, 2_500, "read")["ids"]  # none may end before the kill
    with place.worker(runs) as doomed:
        place.part("in_flight", min(ids))
        with place.worker(runs):
            doomed.kill()
            killed = time.time()
            ended = place.part("ended", min(ids), killed)
    assert not ended["wrong"], (
        f"after the takeover {ended['wrong']} of {runs} runs have lost or repeated a step"
    )
    return {"takeover_s": round(ended["takeover"], 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="which parts, with commas between them")
    parser.add_argument(
        "--database", default="", help="an empty PostgreSQL database; everything in it is deleted"
    )
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, scripted_server() as server:
        for part in (part for part in PARTS if part in wanted):
            place = Installation(Path(folder) / part, server, arguments.database)
            match part:
                case "overhead":
                    found = place.part("overhead")
                case "wall":
                    found = measure_wall(place)
                case "approve":
                    found = measure_approval(place)
                case _:
                    found = measure_takeover(place)
            print(f"{part}: {json.dumps(found)}", flush=True)
            figures |= found
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
