"""How fast lists, searches and pages of runs are with very many steps.

    uv run benchmarks/traces.py [--steps N] [--database-url URL] [--only list,filter,…] [--keep FOLDER]

Builds the data set of trace_data.py in a temporary folder, or in an empty PostgreSQL database (everything in
it is deleted), indexes it, starts the web process and asks for pages over HTTP on loopback as a signed-in
user, one after another. Times are from sending the request to the last byte of the answer. With a million
steps it takes about ten minutes and eight gigabytes. The last line is one JSON object:

list_p95_ms, filter_p95_ms, next_p95_ms, sort_p95_ms  the list, filtered lists, further pages, by cost
search_rare_p95_ms, search_common_p95_ms              a word of few steps, words of most steps
run_p95_ms, run_30k_p95_ms                            pages of a run of 12 steps or so, and of the longest run
live_p95_ms                                           from commit in a worker to page in Chromium: live.py
cpu_ms                                                processor time of the web process per page, of each kind
rss_mb                                                memory of the web process after all of this
bytes_per_step, spent                                 size of the database, and what it is spent on
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.live import measure_live  # noqa: E402

UNWANTED = ("ANTHROPIC", "DATABASE", "DJANGO", "AGENTOPS")
TIMES = 40  # requests of each kind
KINDS = ("list", "filter", "next", "sort", "search_rare", "search_common", "run", "run_30k")
LIVE = "live"


class Installation:
    """A folder, or an empty database, with the data set."""

    def __init__(self, folder: Path, database: str) -> None:
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(UNWANTED)} | {
            "AGENTOPS_DATA": str(folder),
            "DATABASE_URL": database or f"sqlite:///{folder}/agentops.sqlite3",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, *arguments: str) -> str:
        """One command to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed")
        return done.stdout

    def build(self, steps: int, *days: str, indexed: bool = True) -> dict[str, Any]:
        """The data set, over so many days up to now if that is said, and its index; without steps nothing."""
        self.run("manage.py", "migrate", "-v", "0")
        self.run("manage.py", "flush", "--no-input", "-v", "0")
        if not steps:
            return {"steps": 0}
        built: dict[str, Any] = json.loads(
            self.run("-m", "benchmarks.trace_data", str(steps), *days).splitlines()[-1]
        )
        print(f"built: {json.dumps(built)}", flush=True)
        if not indexed:
            return built
        began = time.monotonic()
        self.run("manage.py", "reindexsearch")
        built["index_s"] = round(time.monotonic() - began, 1)
        print(f"indexed in {built['index_s']} s", flush=True)
        self.run("manage.py", "checkcosts", "--count")  # else the worker would catch up while it is measured
        return built

    @contextmanager
    def web(self) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """The web process and its port."""
        command = [
            "-m",
            "uvicorn",
            "agentops.asgi:application",
            "--port",
            "0",
            "--lifespan",
            "off",
            "--no-access-log",
        ]
        with subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=self.environment, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stderr
                port = next(
                    int(found[1])
                    for line in process.stderr
                    if (found := re.search(r"127\.0\.0\.1:(\d+)", line))
                )
                yield process, port
            finally:
                process.terminate()


class Browser:
    """A signed-in user who reads pages."""

    def __init__(self, port: int, session: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._headers = {"Cookie": f"sessionid={session}"}

    def get(self, path: str) -> tuple[float, str]:
        """Milliseconds, and the page."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        took = (time.perf_counter() - began) * 1e3
        assert answer.status == 200, (path, answer.status, text[:300])
        return took, text


def paths(kind: str, browser: Browser, facts: dict[str, Any]) -> list[str]:
    """Addresses of this kind, each for one reader."""
    if kind == "list":
        return ["/?q="]
    if kind == "filter":
        searches = ("status:failed", "status:failed agent:review", "user:olga cost:>0.1", "cost:>1000",
                    "has:approval status:stopped", "steps:>20 after:2026-11-01 before:2026-11-05",
                    "-status:succeeded duration:>1m")  # fmt: skip
    elif kind == "sort":
        return [f"/?q={quote(q)}&sort={sort}" for q in ("", "status:failed", "agent:review")
                for sort in ("cost", "-cost", "duration", "tokens")]  # fmt: skip
    elif kind == "search_rare":
        rare = facts["rare"]
        searches = (f"zx{rare[0]}rare", f"zx{rare[1]}rare status:succeeded", f'"customer is zx{rare[2]}rare"',
                    f"zx{rare[3]}rare timeout -deadlock", "zxnowhere")  # fmt: skip
        return [f"/?q={quote(q)}" for q in searches] + [f"/?q={quote(searches[0])}&sort=cost"]
    elif kind == "search_common":
        searches = ("timeout", "connection pool", '"slow query"', "timeout status:failed", "tool:get_metrics",
                    "tool:search_logs timeout", "timeout -deadlock", "error:timeout", "接続")  # fmt: skip
        return [f"/?q={quote(q)}" for q in searches] + ["/?q=timeout&sort=cost"]
    elif kind == "next":
        return _further(browser)
    elif kind == "run":
        return [f"/runs/{run}/" for run in facts["dozen"]]
    else:
        return [f"/runs/{facts['huge']}/"]
    return [f"/?q={quote(q)}" for q in searches]


def _further(browser: Browser) -> list[str]:
    """The second to tenth page of a few lists, and back."""
    found = []
    for begin in ("/?q=", "/?q=status%3Afailed", "/?q=timeout", "/?q=&sort=cost"):
        path = begin
        for _ in range(4):
            _, page = browser.get(path)
            link = re.search(r'rel="next" href="([^"]+)"', page)
            if link is None:
                break
            path = link[1].replace("&amp;", "&")
            found.append(path)
        _, page = browser.get(path)
        found += [link.replace("&amp;", "&") for link in re.findall(r'rel="prev" href="([^"]+)"', page)]
    return found


def measure(browser: Browser, kind: str, facts: dict[str, Any], web: psutil.Process) -> tuple[float, float]:
    """95 of 100 answers are faster than the first, in milliseconds; processor time of one is the second."""
    wanted = paths(kind, browser, facts)
    slowest: dict[str, float] = {}
    for path in wanted:
        browser.get(path)
    times, before = [], sum(web.cpu_times()[:2])
    for turn in range(max(TIMES, 3 * len(wanted))):
        path = wanted[turn % len(wanted)]
        took, _ = browser.get(path)
        times.append(took)
        slowest[path] = max(took, slowest.get(path, 0.0))
    print(f"{kind}:", {path: round(took) for path, took in sorted(slowest.items(), key=lambda x: -x[1])[:4]})
    cpu = (sum(web.cpu_times()[:2]) - before) / len(times) * 1e3
    return round(sorted(times)[int(0.95 * len(times))], 1), round(cpu, 1)


def measure_pages(
    place: Installation, port: int, web: psutil.Process, wanted: list[str], steps: int
) -> dict[str, Any]:
    """Times of these kinds of pages, and what the database is made of."""
    facts = json.loads(place.run("-m", "benchmarks.trace_data", "facts").splitlines()[-1])
    browser = Browser(port, facts["session"])
    figures: dict[str, Any] = {"cpu_ms": {}}
    for kind in (kind for kind in KINDS if kind in wanted):
        figures[f"{kind}_p95_ms"], figures["cpu_ms"][kind] = measure(browser, kind, facts, web)
    sizes = facts["sizes"]
    figures["bytes_per_step"] = round(sum(sizes.values()) / steps)
    figures["spent"] = {
        name: round(size / steps, 1) for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:12]
    }
    return figures


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument(
        "--database-url", default="", help="an empty PostgreSQL database; all in it is deleted"
    )
    parser.add_argument(
        "--only", default=",".join((*KINDS, LIVE)), help="which kinds, with commas between them"
    )
    parser.add_argument("--keep", default="", help="build here, or measure again what was built here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.keep or temporary)
        folder.mkdir(exist_ok=True)
        place = Installation(folder, arguments.database_url)
        if arguments.only == LIVE and not arguments.keep:
            arguments.steps = 0
        kept = folder / "built.json"
        figures: dict[str, Any] = (
            json.loads(kept.read_text()) if kept.exists() else place.build(arguments.steps)
        )
        kept.write_text(json.dumps(figures))
        wanted = arguments.only.split(",")
        with place.web() as (web, port):
            process = psutil.Process(web.pid)
            if figures["steps"]:
                figures |= measure_pages(place, port, process, wanted, figures["steps"])
            if LIVE in wanted:
                figures |= measure_live(place, port, lambda path, who: Browser(port, who).get(path)[1])
            figures["rss_mb"] = round(process.memory_info().rss / 1e6)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
