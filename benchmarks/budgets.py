"""Runs with random usage race for shared budgets: none may exceed its own limits or a hard budget.

    uv run benchmarks/budgets.py [--runs 10000] [--processes 2] [--threads 4] [--database URL]

The decision, the reservation and the ledger are the real ones; only the model is drawn at random. Budgets of
every scope and period apply, tags are put on runs and taken off while their calls are under way, and one call
in ten breaks off. After each reservation the ledgers are compared with their limits, at the end also with the
steps. Everything lives in a temporary folder, or in an empty PostgreSQL. The last line is one JSON object:

runs, calls   how many were made
held_back     runs that ended because a limit or a budget had no room for the next call
races_lost    calls that were decided on and then did not fit, because another run was faster
violations    runs above a limit of their own, ledgers above a hard limit or different from their steps
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNWANTED = ("ANTHROPIC", "DATABASE", "DJANGO", "AGENTOPS")
PREPARE = "from tests import budget_race; budget_race.prepare({runs})"
AUDIT = "from tests import budget_race; print(budget_race.audit())"
SETUP = "import django; django.setup(); "


def main() -> None:
    """Prepare, race, audit, report; the exit status is 1 when anything was exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentops-budgets-") as folder:
        report = measure(folder, options)
    print(json.dumps(report))
    sys.exit(1 if report["violations"] else 0)


def measure(folder: str, options: argparse.Namespace) -> dict[str, float]:
    """The counts of all processes together."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(UNWANTED)} | {
        "AGENTOPS_DATA": folder,
        "DATABASE_URL": options.database or f"sqlite:///{folder}/agentops.sqlite3",
        "DJANGO_SETTINGS_MODULE": "agentops.settings",
    }

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )

    def said(process: subprocess.Popen[str]) -> str:
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{process.args!r} failed")
        return output.strip()

    said(start("manage.py", "migrate", "-v0"))
    said(start("-c", SETUP + PREPARE.format(runs=options.runs)))
    began = time.monotonic()
    counts = [options.runs // options.processes] * options.processes
    counts[0] += options.runs - sum(counts)
    racers = [
        start("-m", "tests.budget_race", "play", str(count), str(options.threads), f"{options.seed + n}")
        for n, count in enumerate(counts)
    ]
    total: Counter[str] = Counter()
    for racer in racers:
        total.update(json.loads(said(racer).splitlines()[-1]))
    return {
        "runs": total["runs"],
        "calls": total["calls"],
        "held_back": total["held back"],
        "races_lost": total["races lost"],
        "violations": total["violations"] + int(said(start("-c", SETUP + AUDIT))),
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    main()
