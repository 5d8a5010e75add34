"""Hours of trouble in minutes: many runs at once, faults, people who interfere, workers that are killed.

    uv run benchmarks/soak.py [--minutes 10] [--runs 50] [--workers 3] [--seed N] [--database URL]

An installation in a temporary folder with several worker processes. So many runs are kept going at all
times, over every incident of the estate. Meanwhile each worker's simulator fails by a script of its own, one
person approves, rejects or lets expire, another one pauses, resumes, cancels, retries, forks and asks, and
every few seconds a worker is ended by SIGKILL, sometimes by SIGTERM, and another one starts. After the given
time no run is added, nothing is killed, and whatever is left has to end within a bounded time. Then every run
is checked.

Everything listens on the loopback address and is ended by its id. The seed chooses what is done, not when it
meets what. The last line is one JSON object, and the exit status is 1 when something is wrong:

runs, turns, tool_calls  what was done; `statuses` says how the runs ended, `approvals` what became of those
kills, terms             worker processes that were ended by SIGKILL and by SIGTERM
takeovers, lost_turns    runs that another worker took from a dead one; turns that died with their worker
cancelled_turns          turns that somebody cancelled in the middle
faults                   failed attempts at a turn by their kind
changes                  remediations that happened in the estate
violations               contradictions among rows, changes that happened twice or without a start, tool uses
                         without exactly one result, errors of ours, workers that left by themselves
stuck                    runs that did not end
seconds                  all of it
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import django

ROOT = Path(__file__).resolve().parent.parent
UNWANTED = ("ANTHROPIC", "DATABASE", "DJANGO", "AGENTOPS")
LEASE_SECONDS = 3
FAULTS = (
    *("status 500", "status 503", "status 529", "status 504", "status 529 retry-after=1"),
    *("status 429 retry-after=0", "status 429 retry-after=2", "status 402", "status 400", "status 401"),
    *("drop 0", "drop 4", "drop 9", "eof 3", "eof 8", "error 2", "error 7", "stall 5 seconds=0.3"),
    *("slow 0.3", "slow 1.5", "empty", "pause_turn", "bad_json", "bad_json cut", "max_tokens tool"),
    *("max_tokens text", "redacted", "block novel", "event novel", "refusal", "stop_reason novel"),
)
SCRIPTED_REQUESTS = 300  # of each worker; hardly one lives longer
FAULTY = 0.15  # share of these that meet a fault
TERMINATED = 0.25  # share of ended workers that are asked to leave
LEAVES_WITHIN = 60.0  # seconds for a worker that is asked to
DRAIN_SECONDS = 240.0


class Worker:
    """A worker process with a fault script of its own; what it prints goes to a file."""

    def __init__(self, log: Path, concurrency: int, chance: random.Random) -> None:
        self.log = log
        faulty = (n for n in range(1, SCRIPTED_REQUESTS + 1) if chance.random() < FAULTY)
        script = "; ".join(f"{number}: {chance.choice(FAULTS)}" for number in faulty)
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "worker", "--concurrency", str(concurrency)],
                cwd=ROOT,
                env=os.environ | {"AGENTOPS_SIMULATOR_FAULTS": script},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def works(self) -> bool:
        """Whether it has begun to look for runs."""
        return self.process.poll() is None and "drives up to" in self.log.read_text()

    def tracebacks(self) -> list[str]:
        """The last line of each traceback it printed."""
        blocks = self.log.read_text(errors="replace").split("Traceback (most recent call last):")[1:]
        return [next((row for row in block.splitlines() if row[:1].strip()), "?")[:300] for block in blocks]


class Crew:
    """So many workers at all times, whatever happens to them."""

    def __init__(self, folder: Path, workers: int, runs: int, seed: int) -> None:
        self._folder = folder
        self._chance = random.Random(f"{seed} workers")
        self._concurrency = max(2, runs // workers)
        self._started: list[Worker] = []
        self._leaving: dict[int, float] = {}  # pid -> when it was asked to
        self._killed: set[int] = set()
        self.kills = self.terms = 0
        self.problems: list[str] = []
        self.crew = [self._start() for _ in range(workers)]

    def _start(self) -> Worker:
        log = self._folder / f"worker-{len(self._started) + 1}.log"
        worker = Worker(log, self._concurrency, self._chance)
        self._started.append(worker)
        return worker

    def strike(self) -> None:
        """End one worker that works, one way or the other, and start the next."""
        working = [place for place, worker in enumerate(self.crew) if worker.works]
        if not working:
            return
        place = self._chance.choice(working)
        process = self.crew[place].process
        if self._chance.random() < TERMINATED:
            process.send_signal(signal.SIGTERM)
            self._leaving[process.pid] = time.monotonic()
            self.terms += 1
        else:
            process.kill()
            self._killed.add(process.pid)
            self.kills += 1
        self.crew[place] = self._start()

    def look(self) -> None:
        """Notice workers that left by themselves, or did not leave when they were asked to."""
        for place, worker in enumerate(self.crew):
            if worker.process.poll() is not None:
                self.problems.append(f"{worker.log.name} left with status {worker.process.returncode}")
                self.crew[place] = self._start()
        for worker in self._started:
            pid, status = worker.process.pid, worker.process.poll()
            if pid not in self._leaving:
                continue
            if status is None and time.monotonic() - self._leaving[pid] > LEAVES_WITHIN:
                self.problems.append(f"{worker.log.name} did not leave within {LEAVES_WITHIN:g} s")
                worker.process.kill()
            if status is not None or time.monotonic() - self._leaving[pid] > LEAVES_WITHIN:
                del self._leaving[pid]
                if status:
                    self.problems.append(f"{worker.log.name} was asked to leave, its status is {status}")

    def end(self) -> None:
        """End every process that is left; then read what they printed."""
        alive = [worker.process for worker in self._started if worker.process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + LEAVES_WITHIN
        for process in alive:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.problems.append(f"process {process.pid} did not leave at the end")
                process.kill()
                process.wait()
        for worker in self._started:
            self.problems += [f"{worker.log.name}: {line}" for line in worker.tracebacks()]


def install(folder: Path, database: str) -> Any:
    """A fresh installation for this process and those it starts; returns the people who use it."""
    for name in [name for name in os.environ if name.startswith(UNWANTED)]:
        del os.environ[name]
    os.environ |= {
        "AGENTOPS_DATA": str(folder),
        "AGENTOPS_PACE": "0",
        "AGENTOPS_LEASE_SECONDS": str(LEASE_SECONDS),
        "DATABASE_URL": database or f"sqlite:///{folder}/agentops.sqlite3",
        "DJANGO_SETTINGS_MODULE": "agentops.settings",
        "PYTHONUNBUFFERED": "1",
    }
    manage = [sys.executable, "manage.py"]
    subprocess.run([*manage, "migrate", "-v", "0"], cwd=ROOT, check=True)
    if database:
        subprocess.run([*manage, "flush", "--no-input", "-v", "0"], cwd=ROOT, check=True)
    sys.path.insert(0, str(ROOT))
    django.setup()
    return importlib.import_module("benchmarks.soak_people")


def soak(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All of it; the figures."""
    began = time.monotonic()
    people = install(folder, arguments.database).People(arguments.runs, arguments.seed)
    chance = random.Random(f"{arguments.seed} strikes")
    crew = Crew(folder, arguments.workers, arguments.runs, arguments.seed)
    try:
        people.begin()
        calm_at = time.monotonic() + arguments.minutes * 60
        strike_at = time.monotonic() + 4
        says_at = 0.0
        while time.monotonic() < calm_at:
            time.sleep(0.2)
            crew.look()
            if time.monotonic() > strike_at:
                crew.strike()
                strike_at = time.monotonic() + chance.uniform(2, 7)
            if time.monotonic() > says_at:
                says_at = time.monotonic() + 10
                seconds = time.monotonic() - began
                print(
                    f"{seconds:4.0f} s  {people.says()}, {crew.kills + crew.terms} workers ended", flush=True
                )
        people.drain()
        until = time.monotonic() + DRAIN_SECONDS
        while (left := people.left()) and time.monotonic() < until:
            print(f"{time.monotonic() - began:4.0f} s  {left} runs still have to end", flush=True)
            time.sleep(2)
            crew.look()
    finally:
        people.end()
        crew.end()
    figures = people.verdict() | {"kills": crew.kills, "terms": crew.terms, "seed": arguments.seed}
    figures["violations"] = [*figures["violations"], *crew.problems]
    return figures | {"seconds": round(time.monotonic() - began)}


def main() -> None:
    """Soak and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=10, help="how long runs are added and workers killed"
    )
    parser.add_argument("--runs", type=int, default=50, help="runs that are kept going at once")
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the choices")
    parser.add_argument("--database", default="", help="an empty PostgreSQL; everything in it is deleted")
    parser.add_argument("--keep", type=Path, help="a folder that does not exist yet, to keep all of it")
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True)
        figures = soak(arguments.keep.resolve(), arguments)
    else:
        with tempfile.TemporaryDirectory() as folder:
            figures = soak(Path(folder), arguments)
    for sentence in figures["violations"][:50]:
        print(f"violation: {sentence}")
    figures["violations"] = len(figures["violations"])
    print(json.dumps(figures))
    sys.exit(1 if figures["violations"] or figures["stuck"] else 0)


if __name__ == "__main__":
    main()
