"""How fast the cost report is with very many steps.

    uv run benchmarks/costs.py [--steps N] [--database-url URL] [--keep FOLDER]

Builds the data set of trace_data.py over DAYS days up to now, in a temporary folder or in an empty PostgreSQL
database (everything in it is deleted). Counts the sums of all hours that are over, as workers do, and checks
each of them against the ledger. Then it starts the web process and asks for /costs/ over HTTP on loopback as
a signed-in user, one after another: 90 days by each breakdown, in UTC and in a zone whose days are not those
of UTC. Times are from sending the request to the last byte of the answer. The last line is one JSON object:

costs_p95_ms          95 of 100 of all these answers are faster
by                    the same for each breakdown and zone
count_s, check_s      counting all sums, and checking them
charges, sums         rows of the ledger, and of sums
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.traces import Browser, Installation  # noqa: E402

DAYS = 90
TIMES = 40  # requests of each kind
BREAKDOWNS = ("agent", "model", "user", "tag", "tool", "class")
ZONES = ("UTC", "Europe/Berlin")
COUNT = """
import json; from runs.models import Charge, CostSum
print(json.dumps({"charges": Charge.objects.count(), "sums": CostSum.objects.count()}))
"""


def main() -> None:
    """Build, count, check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument(
        "--database-url", default="", help="an empty PostgreSQL database; all in it is deleted"
    )
    parser.add_argument("--keep", default="", help="build here, or measure again what was built here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.keep or temporary)
        folder.mkdir(exist_ok=True)
        place = Installation(folder, arguments.database_url)
        kept = folder / "built.json"
        figures: dict[str, Any] = (
            json.loads(kept.read_text())
            if kept.exists()
            else place.build(arguments.steps, str(DAYS), indexed=False)
        )
        kept.write_text(json.dumps(figures))
        began = time.monotonic()
        place.run("manage.py", "checkcosts", "--count")
        figures["count_and_check_s"] = round(time.monotonic() - began, 1)
        began = time.monotonic()
        print(place.run("manage.py", "checkcosts").strip(), flush=True)
        figures["check_s"] = round(time.monotonic() - began, 1)
        figures |= json.loads(place.run("manage.py", "shell", "-v", "0", "-c", COUNT).splitlines()[-1])
        facts = json.loads(place.run("-m", "benchmarks.trace_data", "facts").splitlines()[-1])
        with place.web() as (_, port):
            figures |= measure(Browser(port, facts["session"]))
    print(json.dumps(figures))


def measure(browser: Browser) -> dict[str, Any]:
    """Milliseconds of all answers, and by breakdown and zone."""
    times: dict[str, list[float]] = {}
    for turn in range(TIMES + 2):
        for zone in ZONES:
            for name in BREAKDOWNS:
                took, page = browser.get(f"/costs/?period=90&unit=day&by={name}&zone={zone}")
                assert "Most expensive runs" in page, "the page shows nothing"
                if turn > 1:  # the first two warm up
                    times.setdefault(f"{name}, {zone}", []).append(took)
    return {
        "costs_p95_ms": _p95([took for of_kind in times.values() for took in of_kind]),
        "by": {kind: _p95(of_kind) for kind, of_kind in times.items()},
    }


def _p95(times: list[float]) -> float:
    return round(sorted(times)[int(0.95 * len(times))], 1)


if __name__ == "__main__":
    main()
