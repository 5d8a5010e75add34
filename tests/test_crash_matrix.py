"""kill -9 at every arrow of a run, for every class of effect: what is left, and what happens next.

The cases are played by real processes (`crash_worker`). Here stands what has to come of them, written from
the promises of the engine, and the table in docs/crash-matrix.md that is made of what really came of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Installation
from tests.crash_worker import Case, Death
from tests.test_chaos import EXAMPLES

pytestmark = pytest.mark.server

DOCUMENT = ROOT / "docs" / "crash-matrix.md"
CLASSES = ("read", "write_with_key", "write_without_key", "destroy_with_key", "destroy_without_key")
GATED = CLASSES[3:]
CHANGES = CLASSES[1:]
UNGATED = CLASSES[:3]
# Tools with a probe differ from the others only where a call was started.
PROBED = ("write_with_probe", "destroy_with_probe")
COLUMNS = (*CLASSES[:2], PROBED[0], *CLASSES[2:4], PROBED[1], CLASSES[4])
PHASES = ("uncommitted", "committed")
PROCESSES = 2  # that play the cases, each with an installation of its own

Ends = Callable[[str, str], str]  # tool, phase -> the status of the call in the end


def repeatable(tool: str) -> bool:
    """Whether a call that was started may be started again, if need be after a look at what it did."""
    return tool == "read" or tool.endswith(("with_key", "with_probe"))


def always(status: str) -> Ends:
    """It ends like this, whenever the process died."""
    return lambda tool, phase: status


succeeds = always("succeeded")


def lost(tool: str, phase: str) -> str:
    """It had started, and its result was not stored."""
    return "succeeded" if repeatable(tool) else "unknown"


def lost_unless(stored: str) -> Ends:
    """The phase in which nothing is lost; in the other one START is known and the result is not."""
    return lambda tool, phase: "succeeded" if phase == stored else lost(tool, phase)


def error_lost(tool: str, phase: str) -> str:
    """The tool refused without acting. A later error says nothing about the first start; a probe does."""
    return "failed" if phase == "committed" or tool == "read" or tool in PROBED else "unknown"


def answer_lost(tool: str, phase: str) -> str:
    """The tool acted and its answer was lost: asked again with the same key, or unknown."""
    if tool == "read":
        return "failed"
    return "succeeded" if repeatable(tool) else "unknown"


@dataclass(frozen=True)
class Point:
    """An arrow, the action that is its transaction, and what becomes of a call when a process dies there."""

    machine: str
    arrow: str
    action: str
    ends: Ends = succeeds
    tools: tuple[str, ...] = CLASSES
    phases: tuple[str, ...] = PHASES
    before: tuple[Death, ...] = ()  # deaths of earlier processes that lead here
    nth: int = 1
    mode: str = "fine"
    person: str = "approve"
    faults: str = ""
    run: str = "succeeded"  # how the run ends

    def cases(self) -> Iterator[tuple[str, Case]]:
        """Each phase and class as (phase, case)."""
        for phase in self.phases:
            for tool in self.tools:
                name = f"{self.machine}: {self.arrow} [{self.action} {phase}] {tool}"
                deaths = (*self.before, Death(self.action, phase, self.nth))
                yield (
                    phase,
                    Case(name, tool, deaths, mode=self.mode, person=self.person, faults=self.faults),
                )


IN_TOOL = Death("tool", "after")
SLOWLY = "1: stall 8 seconds=5"  # long enough for a draft to be stored
POINTS = (
    Point("Model turn", "queued → driven", "claim"),
    Point("Model turn", "the attempt is written, nothing sent", "start_attempt"),
    Point("Model turn", "the answer streams", "save_draft", phases=("committed",), faults=SLOWLY),
    Point("Model turn", "streaming → turn with its calls", "finish_turn"),
    Point("Model turn", "streaming → turn with the answer", "finish_turn", nth=2),
    Point("Model turn", "streaming → failed (529)", "fail_attempt", faults="1: status 529"),
    Point("Model turn", "failed → parked until the retry", "park", faults="1: status 529"),
    Point(
        "Model turn",
        "lost with its worker → closed by the next one, which dies too",
        "fail_attempt",
        before=(Death("save_draft", "committed"),),
        faults=SLOWLY,
    ),
    Point("Model turn", "failed → paused (spend limit)", "pause", faults="1: status 402"),
    Point("Model turn", "paused → queued (a person resumes)", "resume_run", faults="1: status 402"),
    Point("Model turn", "queued → paused (a person pauses)", "pause_run", person="pause"),
    Point("Model turn", "empty answer → asked to go on", "add_note", faults="1: empty"),
    Point("Model turn", "driven → queued (its worker stops in good order)", "hand_back"),
    Point("Model turn", "last turn → run is over", "end_run"),
    Point("Tool call", "proposed → ready", "allow_call", tools=(*UNGATED, PROBED[0])),
    Point("Tool call", "proposed → waiting", "ask_approval", tools=(*GATED, PROBED[1])),
    Point(
        "Tool call",
        "proposed → refused (wrong arguments)",
        "refuse_call",
        always("refused"),
        CHANGES,
        mode="invalid",
    ),
    Point("Tool call", "ready → executing (START)", "start_call", lost_unless("uncommitted"), COLUMNS),
    Point("Tool call", "executing, before the effect", "tool", lost, COLUMNS, ("before",)),
    Point("Tool call", "executing, after the effect", "tool", lost, COLUMNS, ("after",)),
    Point("Tool call", "executing → succeeded", "finish_call", lost_unless("committed"), COLUMNS),
    Point(
        "Tool call", "executing → failed (it did nothing)", "finish_call", error_lost, COLUMNS, mode="refuse"
    ),
    Point(
        "Tool call",
        "executing → failed or unknown (the answer was lost)",
        "finish_call",
        answer_lost,
        tools=("read", "write_without_key", "destroy_without_key"),
        mode="lose",
    ),
    Point(
        "Tool call",
        "executing → ready (the answer was lost, same key)",
        "recover_call",
        answer_lost,
        tools=("write_with_key", "destroy_with_key"),
        mode="lose",
    ),
    Point(
        "Tool call",
        "executing → succeeded (the answer was lost, the probe finds the effect)",
        "reconcile_call",
        tools=PROBED,
        mode="lose",
    ),
    Point(
        "Tool call",
        "executing → succeeded (the probe finds the effect), by the next worker, which dies too",
        "reconcile_call",
        tools=PROBED,
        before=(IN_TOOL,),
    ),
    Point(
        "Tool call",
        "executing → ready (the probe finds nothing), by the next worker, which dies too",
        "reconcile_call",
        tools=PROBED,
        before=(Death("tool", "before"),),
    ),
    Point(
        "Tool call",
        "executing → unknown (the probe cannot tell), by the next worker, which dies too",
        "reconcile_call",
        always("unknown"),
        PROBED,
        before=(IN_TOOL,),
        mode="blind",
    ),
    Point(
        "Tool call",
        "executing, before the effect (the probe cannot tell)",
        "tool",
        always("unknown"),
        PROBED,
        ("before",),
        mode="blind",
    ),
    Point(
        "Tool call",
        "executing → ready or unknown, by the next worker, which dies too",
        "recover_call",
        lost,
        before=(IN_TOOL,),
    ),
    Point(
        "Tool call",
        "third start of a call that ends its process each time",
        "tool",
        lambda tool, phase: "unknown" if tool.endswith("with_key") else "failed",
        tools=("read", "write_with_key", "destroy_with_key", *PROBED),
        phases=("before",),
        before=(Death("tool", "before"), Death("tool", "before")),
    ),
    Point(
        "Tool call",
        "ready → refused (its tool changed)",
        "refuse_call",
        always("refused"),
        (*GATED, PROBED[1]),
        person="changed",
    ),
    Point(
        "Tool call",
        "executing → over (its worker died and a person cancels the run)",
        "cancel_run",
        lambda tool, phase: "refused" if tool == "read" else "unknown",
        COLUMNS,
        before=(IN_TOOL,),
        person="cancel_started",
        run="cancelled",
    ),
    Point("Approval", "pending, run → waiting", "park", tools=GATED),
    Point("Approval", "pending → approved", "decide", tools=GATED),
    Point("Approval", "pending → rejected", "decide", always("refused"), GATED, person="reject"),
    Point("Approval", "pending → expired", "expire_approvals", always("refused"), GATED, person="expire"),
    Point(
        "Approval",
        "approved → expired (not started in time)",
        "start_call",
        always("refused"),
        GATED,
        person="late",
    ),
    Point(
        "Approval",
        "approved → invalidated (other bytes)",
        "start_call",
        always("refused"),
        GATED,
        person="tampered",
    ),
    Point("Approval", "pending, a person asks for other arguments", "ask_edit", tools=GATED, person="edit"),
    Point("Approval", "pending → replaced by the next revision", "open_revision", tools=GATED, person="edit"),
    Point(
        "Approval",
        "approved → invalidated, asked again (what they saw changed)",
        "ask_again",
        tools=GATED,
        person="drift",
    ),
    Point("Approval", "approved → revoked", "revoke", always("refused"), GATED, person="revoke"),
    Point(
        "Approval",
        "pending → cancelled (a person cancels the run)",
        "cancel_run",
        always("refused"),
        GATED,
        person="cancel",
        run="cancelled",
    ),
)
CASES = [(point, phase, case) for point in POINTS for phase, case in point.cases()]
BY_NAME = {case.name: (point, phase, case) for point, phase, case in CASES}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each case, by name. All are played at once: a process is forked for each life."""
    players = [
        _player(tmp_path_factory.mktemp("matrix"), [case for _, _, case in CASES[number::PROCESSES]])
        for number in range(PROCESSES)
    ]
    found: dict[str, dict[str, Any]] = {}
    for process, folder in players:
        assert process.wait(500) == 0, (folder / "err").read_text()[-4000:]
        for line in (folder / "out").read_text().splitlines():
            outcome = json.loads(line)
            found[outcome["name"]] = outcome
    return found


def _player(folder: Path, cases: list[Case]) -> tuple[subprocess.Popen[bytes], Path]:
    """A process that plays these cases in an installation of its own, and where it writes."""
    (folder / "in").write_text("".join(json.dumps(asdict(case)) + "\n" for case in cases))
    program = "import django; django.setup(); from tests.crash_worker import main; main()"
    environment = Installation(folder, DJANGO_SETTINGS_MODULE="agentops.settings").environment
    with (
        (folder / "in").open("rb") as source,
        (folder / "out").open("wb") as out,
        (folder / "err").open("wb") as err,
    ):
        return (
            subprocess.Popen(
                [sys.executable, "-c", program],
                cwd=ROOT,
                env=environment,
                stdin=source,
                stdout=out,
                stderr=err,
            ),
            folder,
        )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(case.name, id=f"{point.action}-{phase}-{case.tool}-{n}")
        for n, (point, phase, case) in enumerate(CASES)
    ],
)
def test_a_run_whose_process_is_killed_ends_as_promised(
    name: str, outcomes: dict[str, dict[str, Any]]
) -> None:
    point, phase, case = BY_NAME[name]
    outcome = outcomes[name]
    end = outcome["end"]
    assert outcome["problems"] == [], "a process did not die where it should, or the last one did not live"
    for rows in (*outcome["after_death"], end):
        if case.person != "tampered":  # that is one
            assert rows["contradictions"] == []
    assert (end["run"], end["call"]) == (point.run, point.ends(case.tool, phase))
    _effects_fit(case, outcome)
    _approval_fits(case, end)
    _results_are_complete(outcome["requests"])
    answered = any(len(body["messages"]) == 3 for body in outcome["requests"])
    assert answered == (point.run == "succeeded"), "the results never reached the model, or too late"
    _requests_continue_the_same_prefix(outcome)


def _effects_fit(case: Case, outcome: dict[str, Any]) -> None:
    """A change takes effect at most once, whatever happens; a tool without a key is not even asked twice."""
    end, starts = outcome["end"], outcome["starts"]
    assert len(set(starts)) <= 1, "the call was made with two keys"
    if case.tool == "read":
        return
    assert end["effects"] <= 1
    if not repeatable(case.tool):
        assert len(starts) <= 1
    if end["call"] == "succeeded":
        assert end["effects"] == 1
    if end["call"] in {"refused", "failed"}:
        assert end["effects"] == 0
    if end["call"] == "refused":
        assert not starts


def _approval_fits(case: Case, end: dict[str, Any]) -> None:
    """Approved is not executed: an approval is redeemed exactly when its call was started."""
    if not case.tool.startswith("destroy") or case.mode == "invalid":
        assert end["approval"] == ""
        return
    states = {
        "reject": "rejected",
        "expire": "expired",
        "late": "expired",
        "tampered": "invalidated",
        "changed": "invalidated",
        "cancel": "cancelled",
        "revoke": "revoked",
    }
    assert end["approval"] == states.get(case.person, "approved")
    assert end["redeemed"] == (end["call"] != "refused")


def _results_are_complete(requests: list[dict[str, Any]]) -> None:
    """In every request, each tool_use has exactly one tool_result, in the next message and in order."""
    for body in requests:
        for said, answered in pairwise(body["messages"]):
            uses = [block["id"] for block in said["content"] if block["type"] == "tool_use"]
            results = [
                block["tool_use_id"] for block in answered["content"] if block["type"] == "tool_result"
            ]
            assert uses == results


def _requests_continue_the_same_prefix(outcome: dict[str, Any]) -> None:
    """What any process sends continues, byte for byte, what any process sent before it."""
    for before, after in pairwise(outcome["requests"]):
        for part in ("model", "system", "tools", "thinking"):
            assert json.dumps(before[part]) == json.dumps(after[part])
        earlier, later = _blocks(before), _blocks(after)
        assert later[: len(earlier)] == earlier
    attempts = outcome["attempts"]
    for failed, again in pairwise(attempts):
        if failed["status"] == "failed":
            assert failed["request_sha256"] == again["request_sha256"], "it was asked with other bytes"


def _blocks(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The conversation as blocks with their role: a later block may join the last message."""
    return [(said["role"], json.dumps(block)) for said in body["messages"] for block in said["content"]]


def test_the_table_in_the_documentation_says_what_happens(outcomes: dict[str, dict[str, Any]]) -> None:
    written = document(outcomes)
    if os.environ.get("AGENTOPS_WRITE_DOCS"):
        DOCUMENT.write_text(written)
    assert DOCUMENT.read_text() == written, (
        "run the tests with AGENTOPS_WRITE_DOCS=1 and look at the difference"
    )


def document(outcomes: dict[str, dict[str, Any]]) -> str:
    """The page: how to read it, then one table for each machine."""
    counted = INTRODUCTION.format(cases=len(CASES), points=len(POINTS))
    parts = [counted]
    for machine in dict.fromkeys(point.machine for point in POINTS):
        parts.append(f"## {machine}\n\n{_table(machine, outcomes)}")
    parts.append(CHAOS.format(examples=EXAMPLES))
    return "\n".join(parts)


def _table(machine: str, outcomes: dict[str, dict[str, Any]]) -> str:
    points = [point for point in POINTS if point.machine == machine]
    columns = [tool for tool in COLUMNS if any(tool in point.tools for point in points)]
    head = ["Arrow", "Killed", *(tool.replace("_", " ") for tool in columns)]
    rows = [head, ["---"] * len(head)]
    for point in points:
        for phase in point.phases:
            cells = {
                case.tool: _cell(machine, outcomes[case.name]) for at, case in point.cases() if at == phase
            }
            rows.append([point.arrow, MOMENTS[phase], *(cells.get(tool, "–") for tool in columns)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(machine: str, outcome: dict[str, Any]) -> str:
    """What the last death left, what became of it, and how often the call took effect."""
    left, end = outcome["after_death"][-1], outcome["end"]
    call, effects = left["call"] or "no call", f"{end['effects']}×"
    if machine == "Model turn":
        again = f"{end['attempts']} attempts"
        return f"{left['run']}, {left['attempt'] or 'no attempt'}, {call} → {again}, {effects}"
    if machine == "Approval":
        return f"{left['approval']}, {call} → {end['approval']}, {end['call']}, {effects}"
    return f"{call} → {end['call']}, {effects}"


MOMENTS = {
    "uncommitted": "before COMMIT",
    "committed": "after COMMIT",
    "before": "in the tool",
    "after": "in the tool",
}
INTRODUCTION = """\
# Crash matrix

What is left of a run when its process is killed with `kill -9`, and what the next process makes of it. This
page is written by `tests/test_crash_matrix.py` from what happened, and compared with it in every run of the
tests: {cases} deaths at {points} arrows. To write it again:

    AGENTOPS_WRITE_DOCS=1 uv run pytest tests/test_crash_matrix.py

Each case is a run of its own whose model asks for one call of the class and for a read beside it. A real
process drives it and sends itself SIGKILL at the point; another real process goes on from the database.
*Before COMMIT* means that every row of the transaction is written and nothing is committed; *after COMMIT* is
the very next instruction.

A cell reads: what the dead process left → what became of it, and how often the call took effect (for a read:
how often it read). What is left is the status of the call; for the model's turn, the status of the run and of
its last attempt before it; for the approval, its state before it. Model turns count their attempts, of which
two succeed and the others are recorded as failed.

In every case the run succeeds, unless a person cancels it; every `tool_use` has exactly one `tool_result`;
the requests continue the same prefix byte for byte; a turn that was lost is asked again with the same bytes;
and `manage.py checkruns` finds no contradiction, neither after a death nor in the end.

- A **read**, and a change whose tool takes the same **key** twice, is started again, three times at most. The
  change takes effect once: the tool knows its key.
- A change whose tool has a **probe** is looked up once the time of the lost call is over. What happened is
  settled with the answer of the probe, what did not happen is started again, three times at most, and what
  the probe cannot tell is unknown. Before its START a call of this class is one like the others.
- A change **without key** that had started is never started again. It is *unknown*, the model is told to look
  and not to repeat it, and *0×* and *1×* beside it are the two things that may have happened.
- A **destructive** change waits for a person first. A decision that was committed is not lost with a process,
  and a call that was refused, started too late, taken back or changed after it was approved never runs.
  What a person wants to run instead is not lost either: the next process makes its dry run and asks.
"""
CHAOS = """\
## Chaos

`tests/test_chaos.py` plays {examples} random stories of the incident agent, the same ones each time;
`AGENTOPS_CHAOS_EXAMPLES=500` plays so many new ones. Faults of the model at random turns; workers that lose
their runs between moves or right after a commit, and come back late; people who approve, reject or let the
time pass. Each run ends, its rows agree with each other, the estate was changed at most once for each
approved remediation, the costs of the steps add up to the cost of the run, and every request is a step.
"""
