"""What `loop.py` runs in processes of its own, with Django. Each prints one JSON object.

python -m benchmarks.loop_parts PART ARGUMENTS
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import django
import psutil

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.db import connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from agentops.agents import AGENTS  # noqa: E402
from runs import actions  # noqa: E402
from runs.agents import Agent, Limits  # noqa: E402
from runs.claude import connect, request_body  # noqa: E402
from runs.engine.drive import drive  # noqa: E402
from runs.engine.worker import Heart  # noqa: E402
from runs.models import Approval, Event, Run  # noqa: E402
from runs.reading.invariants import contradictions  # noqa: E402
from tools.backends import estate  # noqa: E402
from tools.base import ToolContext  # noqa: E402
from tools.registry import TOOLS  # noqa: E402

PAIRS = 11
WARM = 40  # turns before anything is measured: SQLite's log grows to its size once, and is then written over
APPROVALS = 15
LONGEST = 150.0  # seconds that anything is waited for
# The agent of the installation, without limits that a long benchmark would reach.
BENCHMARKED = [
    Agent(
        name=AGENTS[0].name,
        description=AGENTS[0].description,
        instructions=AGENTS[0].instructions,
        tools=AGENTS[0].tools,
        model="claude-sonnet-5-5",
        limits=Limits(steps=1000, tool_calls=1000, tokens=10**9, cost_usd=Decimal(10_000), seconds=36_000),
    )
]
settings.AGENTS = f"{__name__}.BENCHMARKED"


def question(turns: int, milliseconds: int, kind: str = "read") -> str:
    """What makes the scripted server answer so."""
    return f"Benchmark: {turns} turns, {milliseconds} ms, {kind}"


def start(turns: int, milliseconds: int, kind: str = "read") -> Run:
    """A queued run."""
    asked = question(turns, milliseconds, kind)
    return actions.start_run(question=asked, agent=BENCHMARKED[0].name, user=None, started_by="benchmark")


class PlainLoop:
    """What people write by hand: the SDK, a list of messages, tools as functions. Nothing is stored."""

    def __init__(self) -> None:
        self.client = connect(api_key="benchmark", base_url=settings.ANTHROPIC_BASE_URL)
        self.configuration = json.loads(BENCHMARKED[0].configuration(world="plain"))
        estate.open_world("plain", estate.match_scenario("Benchmark"), now=timezone.now())

    def run(self, turns: int, milliseconds: int) -> None:
        """One conversation to its end."""
        said = [{"type": "text", "text": question(turns, milliseconds)}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": said}]
        while True:
            body = request_body(self.configuration, messages, max_tokens=16_000)
            with self.client.messages.stream(**body) as events:
                for _ in events:
                    pass
                message = events.get_final_message()
            messages.append({"role": "assistant", "content": message.to_dict(mode="json")["content"]})
            results = [self.result(block) for block in message.content if block.type == "tool_use"]
            if not results:
                return
            messages.append({"role": "user", "content": results})

    def result(self, call: Any) -> dict[str, Any]:
        """The tool, called as the function it is."""
        context = ToolContext("production", "plain", call.id, "ev_01")
        result = TOOLS[call.name].function(context, **call.input)
        text = json.dumps({"summary": result.summary, "data": result.data}, default=str)
        return {"type": "tool_result", "tool_use_id": call.id, "content": text}


def drive_one(turns: int) -> Run:
    """From the question to the stored answer, in this thread, with a worker's heartbeat beside it."""
    run = start(turns, 0)
    lease = actions.claim(run.pk, "benchmark")
    assert lease is not None
    drive(lease, lambda: False)
    return run


def check(run: Run, turns: int) -> None:
    """That it did what was measured."""
    run.refresh_from_db()
    assert run.status == "succeeded", (run.status, run.explanation)
    assert run.model_calls == turns and run.cost_usd > 0


def overhead() -> dict[str, Any]:
    """Time per turn of both loops, in turns, in one process; medians. And bytes written per run."""
    plain = PlainLoop()
    found: dict[str, Any] = {}
    with Heart():
        plain.run(8, 0)
        drive_one(WARM)
        for turns in (8, 40):
            driven: list[Run] = []
            pairs = [
                (
                    cost(partial(plain.run, turns, 0)),
                    cost(lambda: driven.append(drive_one(turns))),  # noqa: B023
                )
                for _ in range(PAIRS)
            ]
            for run in driven:
                check(run, turns)
            ours = [own for _, own in pairs]
            found[f"overhead_{turns}"] = round(statistics.median(o[0] / p[0] for p, o in pairs), 2)
            found[f"ms_{turns}"] = round(statistics.median(o[0] for o in ours) / turns * 1e3, 1)
            found[f"plain_ms_{turns}"] = round(statistics.median(p[0] for p, _ in pairs) / turns * 1e3, 1)
            found[f"cpu_ms_{turns}"] = round(statistics.median(o[1] for o in ours) / turns * 1e3, 1)
            found[f"plain_cpu_ms_{turns}"] = round(statistics.median(p[1] for p, _ in pairs) / turns * 1e3, 1)
            found[f"written_kb_{turns}"] = round(statistics.median(o[2] for o in ours) / 1e3)
    if found["written_kb_8"]:  # a server writes its files itself
        found["write_growth"] = round(found["written_kb_40"] / found["written_kb_8"], 2)
    return found


def cost(act: Callable[[], None]) -> tuple[float, float, int]:
    """Seconds on the clock, seconds of CPU, and bytes handed to files."""
    process = psutil.Process()
    written, cpu, began = process.io_counters().write_chars, time.process_time(), time.perf_counter()
    act()
    return (
        time.perf_counter() - began,
        time.process_time() - cpu,
        process.io_counters().write_chars - written,
    )


def plain(runs: int, turns: int, milliseconds: int) -> dict[str, Any]:
    """So many plain loops at once, one thread each."""
    loop = PlainLoop()
    loop.run(2, 0)
    ready = threading.Barrier(runs + 1)

    def work() -> None:
        ready.wait()
        try:
            loop.run(turns, milliseconds)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(runs)]
    for thread in threads:
        thread.start()
    ready.wait()
    began, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    return {
        "wall": time.perf_counter() - began,
        "cpu_ms_per_turn": (time.process_time() - cpu) / runs / turns * 1e3,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def queue(runs: int, turns: int, milliseconds: int, kind: str) -> dict[str, Any]:
    """Queue so many runs for a worker."""
    return {"ids": [start(turns, milliseconds, kind).pk for _ in range(runs)]}


def approve() -> dict[str, Any]:
    """Decide, and see how long the worker next door takes until START of the tool is committed."""
    voter = User.objects.create_superuser(f"voter-{os.getpid()}")
    runs = [start(2, 0, "gated") for _ in range(APPROVALS)]
    until(lambda: Approval.objects.filter(run__in=runs, state="pending").count() == len(runs))
    waits = []
    for run in runs:
        time.sleep(0.1)  # the worker has nothing to do
        approval = Approval.objects.get(run=run)
        began = time.perf_counter()
        actions.decide(
            approval_id=approval.pk,
            voter=voter,
            verdict="approve",
            revision=approval.revision,
            digest=approval.digest,
        )
        decided = time.perf_counter()
        until(lambda: Event.objects.filter(run=run, kind="call.started").exists())  # noqa: B023
        waits.append((time.perf_counter() - began, decided - began))
        until(lambda: Run.objects.get(pk=run.pk).is_ended)  # noqa: B023
    return {
        "approve_to_start_ms": round(statistics.median(wait for wait, _ in waits) * 1e3, 1),
        "approve_to_start_worst_ms": round(max(wait for wait, _ in waits) * 1e3, 1),
        "decide_ms": round(statistics.median(own for _, own in waits) * 1e3, 1),
    }


def until(true: Callable[[], bool], *, pause: float = 0.002) -> None:
    """Wait for something in the database; a short pause sees it at once and costs those measured more."""
    deadline = time.monotonic() + LONGEST
    while not true():
        assert time.monotonic() < deadline, f"it did not happen within {LONGEST:g} s"
        time.sleep(pause)


def in_flight(first: int) -> dict[str, Any]:
    """Wait until every run from this one on has an answer of the model and asks for the next."""
    runs = Run.objects.filter(pk__gte=first)
    until(lambda: not runs.filter(model_calls__lt=2).exists(), pause=0.1)
    return {}


def ended(first: int, killed: float = 0.0) -> dict[str, Any]:
    """Wait for the end of every run from this one on; how long they took together, and what is wrong.

    `killed` is when their first worker died: then also how long it took until each made its next call.
    """
    runs = Run.objects.filter(pk__gte=first)
    until(lambda: not runs.filter(ended_at=None).exists(), pause=0.2)
    figures: dict[str, Any] = {"wrong": sum(is_wrong(run) for run in runs)}
    began = min(run.started_at.timestamp() for run in runs if run.started_at)
    figures["wall"] = max(run.ended_at.timestamp() for run in runs if run.ended_at) - began
    if killed:
        died = datetime.fromtimestamp(killed, UTC)
        again = [run.events.filter(at__gt=died, kind="model.started").order_by("seq").first() for run in runs]
        figures["takeover"] = max(event.at.timestamp() - killed if event else LONGEST for event in again)
    return figures


def is_wrong(run: Run) -> bool:
    """Whether a turn was lost or made twice, or its rows contradict each other."""
    match = re.search(r"(\d+) turns", run.user_query)
    assert match
    made = run.steps.filter(status="succeeded")
    calls = run.steps.filter(kind="tool")
    lost = made.filter(kind="model").count() != int(match[1]) or calls.count() != int(match[1]) - 1
    return bool(lost or run.status != "succeeded" or contradictions(run))


def value(word: str) -> Any:
    """An argument of the command line: a number where it is one."""
    return int(word) if word.isdecimal() else float(word) if re.fullmatch(r"\d+\.\d+", word) else word


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    parts: dict[str, Callable[..., dict[str, Any]]] = {
        part.__name__: part for part in (overhead, plain, queue, approve, in_flight, ended)
    }
    print(json.dumps(parts[name](*(value(word) for word in words))))
