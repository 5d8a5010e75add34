"""How soon what a worker commits stands on a page in Chromium while 20 people look; part of `traces.py`.

A worker drives runs of 29 turns against the scripted server, a web process serves ten open pages of such a
run and ten open lists, each of another person. One of the pages is open in Chromium, connected last and so
served last. Its script writes down when a step first stands in the document and when it first stands there
as ended; each of these is compared with the event of the same change, whose time is taken inside the
transaction, so before its commit.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parent.parent
VIEWERS = 20
TURNS = 29  # an agent may take 60 steps
LATENCY = 350  # milliseconds until the model answers
ROUNDS = 2
LONGEST = 28.0  # seconds of one round
OBSERVE = """
window.seen = {};
const look = () => {
  const now = performance.timeOrigin + performance.now();
  for (const row of document.querySelectorAll("a.row[data-step]")) {
    const step = row.dataset.step, spent = row.querySelector(".d");
    window.seen[`begin-${step}`] ??= now;
    if (spent?.textContent.trim() && !spent.querySelector("[data-since]")) window.seen[`end-${step}`] ??= now;
  }
};
document.addEventListener("DOMContentLoaded", () => {
  look();
  const all = {subtree: true, childList: true, attributes: true, characterData: true};
  new MutationObserver(look).observe(document.body, all);
});
"""


class Viewers:
    """People with open pages: sockets that read what they are sent."""

    def __init__(self, port: int, get: Any) -> None:
        self._port, self._get = port, get
        self._sockets = ExitStack()
        self.bytes = 0

    def open(self, path: str, session: str) -> None:
        """Read the page, then follow it as its browser would."""
        page = self._get(path, session)
        found = re.search(r'ws-connect="([^"]+)"', page)
        assert found, path
        socket = self._sockets.enter_context(
            connect(
                f"ws://127.0.0.1:{self._port}{html.unescape(found[1])}",
                additional_headers={"Cookie": f"sessionid={session}"},
                origin=f"http://127.0.0.1:{self._port}",  # type: ignore[arg-type]
                max_size=None,
            )
        )
        threading.Thread(target=self._read, args=(socket,), daemon=True).start()

    def _read(self, socket: Any) -> None:
        try:
            for message in socket:
                self.bytes += len(message)
        except ConnectionClosed:
            pass

    def close(self) -> None:
        """All of them leave."""
        self._sockets.close()


@contextmanager
def scripted_server() -> Iterator[str]:
    """The address of the scripted Messages API in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "benchmarks/scripted.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[None]:
    """A worker process that looks for runs; ended with the block."""
    arguments = [sys.executable, "manage.py", "worker", "--concurrency", "2"]
    with subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and "drives up to" in process.stdout.readline()
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def measure_live(place: Any, port: int, get: Any) -> dict[str, Any]:
    """Figures of the delays, in milliseconds. `place` is the installation, `get` reads (path, session)."""
    with scripted_server() as server:
        environment = place.environment | {
            "AGENTOPS_PACE": "0",
            "ANTHROPIC_API_KEY": "benchmark",
            "ANTHROPIC_BASE_URL": server,
        }

        def ask(*words: object) -> dict[str, Any]:
            command = [sys.executable, "-m", "benchmarks.live_data", *map(str, words)]
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return answer

        sessions = ask("people", VIEWERS)["sessions"]
        delays: list[float] = []
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            for _ in range(ROUNDS):
                run = ask("start", TURNS, LATENCY)
                page = chromium.new_page(viewport={"width": 1400, "height": 900})
                viewers = Viewers(port, get)
                for number, session in enumerate(sessions[1:]):
                    viewers.open(run["page"] if number % 2 else "/?q=", session)
                _open(page, port, run["page"], sessions[0])
                with worker(environment):
                    seen = _follow(page)
                viewers.close()
                times = ask("events", run["pk"])["times"]
                delays += [seen[name] - at for name, at in times.items() if name in seen]
                page.close()
            chromium.close()
    delays.sort()
    assert len(delays) > ROUNDS * 2 * TURNS, f"only {len(delays)} changes were seen"
    print(f"live: {len(delays)} changes, median {delays[len(delays) // 2]:.0f} ms, worst {delays[-1]:.0f} ms")
    return {
        "live_p50_ms": round(delays[len(delays) // 2], 1),
        "live_p95_ms": round(delays[int(0.95 * len(delays))], 1),
    }


def _open(page: Page, port: int, path: str, session: str) -> None:
    """The page in Chromium, connected, with its clock running."""
    address = f"http://127.0.0.1:{port}"
    page.context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
    page.add_init_script(OBSERVE)
    page.goto(f"{address}{path}")
    page.wait_for_selector('#live[data-state="live"]')


def _follow(page: Page) -> dict[str, float]:
    """Until the run has ended; when everything of it was seen first."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until and page.query_selector("#verdict .placeholder"):
        page.wait_for_timeout(500)
    seen: dict[str, float] = page.evaluate("window.seen")
    return seen
