"""How fast the demo starts, and how much it weighs.

    uv run benchmarks/start.py

Starts `manage.py demo` on a fresh data folder, asks for pages until one comes, waits until the first
incident waits for a person, then reads the memory of the idle process. With --environment it also builds an
environment without development tools and adds up its files. The last line is one JSON object: first_page_s,
idle_rss_mb (resident, web and worker in one process), first_incident_s, environment_mb.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 180.0  # seconds for everything that is waited for


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", action="store_true", help="also measure a fresh environment")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        figures |= measure_demo(Path(folder))
        if arguments.environment:
            figures["environment_mb"] = environment_size(Path(folder) / "environment")
    print(json.dumps(figures))


def measure_demo(folder: Path) -> dict[str, float]:
    """Start the demo, look at it, stop it with Ctrl-C."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ANTHROPIC", "DATABASE"))}
    environment |= {"AGENTOPS_DATA": str(folder), "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()
    demo = subprocess.Popen(
        [sys.executable, "manage.py", "demo", "--port", "0"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        base = address(demo)
        with urllib.request.urlopen(base + "/sign-in/", timeout=10) as answer:
            assert answer.status == 200
        first_page = time.monotonic() - began
        wait_for_question(folder / "agentops.sqlite3", began)
        first_incident = time.monotonic() - began
        time.sleep(3)  # let what the incident used be given back
        rss = psutil.Process(demo.pid).memory_info().rss / 1e6
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(30)
    assert demo.returncode == 0, "Ctrl-C did not stop it cleanly"
    return {
        "first_page_s": round(first_page, 2),
        "first_incident_s": round(first_incident, 1),
        "idle_rss_mb": round(rss, 1),
    }


def address(demo: subprocess.Popen[str]) -> str:
    """Where it listens, as it says itself."""
    assert demo.stdout
    for line in demo.stdout:
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            return found[0]
    raise SystemExit("the demo did not start")


def wait_for_question(database: Path, began: float) -> None:
    """Until the first run waits for a person."""
    while time.monotonic() - began < LONGEST:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as source:
            if source.execute("SELECT 1 FROM runs_run WHERE status = 'waiting'").fetchone():
                return
        time.sleep(0.1)
    raise SystemExit("the first incident never asked for an approval")


def environment_size(folder: Path) -> float:
    """Megabytes of files in a fresh environment without development tools."""
    subprocess.run(
        ["uv", "sync", "--quiet", "--no-dev"],
        cwd=ROOT,
        env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(folder), "UV_LINK_MODE": "copy"},
        check=True,
    )
    return round(sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


if __name__ == "__main__":
    main()
