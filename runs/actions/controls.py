"""What people do with a run besides deciding on its calls: cancel, pause, resume, retry.

Every action is one transaction with its event. All raise ActionError with a sentence when they do not apply.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from runs.actions.amounts import quoted, read_amount
from runs.actions.change import Change, change
from runs.actions.clocks import end_waiting, stop_clock
from runs.actions.errors import ActionError
from runs.actions.settling import close_attempts, close_open_steps
from runs.actions.turns import create_note
from runs.agents import PER_TOOL, Limits
from runs.models import Budget, Run, RunStatus
from runs.models.budget import applying, budget_of, period_start

PAUSE = "pause"  # what a driver may be asked for
ASKED = "asked"  # the reason of a pause that a person asked for
RESUMED, RETRIED, FORKED, FOLLOW_UP = "resumed", "retried", "forked", "follow_up"  # names of notes
RESTARTS = frozenset({RETRIED, FORKED, FOLLOW_UP})  # after these, earlier summaries no longer count
LARGEST_LIMIT = 10**9
FORGOTTEN = frozenset({"repeats"})  # limits that a retry alone lets begin anew
GO_ON = "A person raised the limit. Go on with the task where you were; you may call tools again."


def cancel_run(*, run_id: int, actor: str) -> None:
    """End the run now, in whatever state it is and whoever drives it.

    Questions are withdrawn, calls that did not start are refused, a change that had started is unknown, and
    a turn that streams is paid for by estimate. The driver loses its lease: nothing it still has is stored.
    """
    with change(run_id, actor=actor) as current:
        if current.run.is_ended:
            raise ActionError(f"This run has ended already: it {_is(current.run)}.")
        end_waiting(current)
        close_open_steps(current)
        _take_from_driver(current)
        current.set(
            status=RunStatus.CANCELLED,
            reason="cancelled",
            explanation=f"Cancelled by {actor}.",
            ended_at=current.now,
        )
        current.event("run.cancelled", reason="cancelled")


def pause_run(*, run_id: int, actor: str) -> bool:
    """Make no further move until a person resumes the run.

    True when it is paused now; False when a worker drives it and pauses it after its current move.
    """
    with change(run_id, actor=actor) as current:
        run = current.run
        if run.is_ended or run.status == RunStatus.PAUSED:
            raise ActionError(f"Only a run that goes on can be paused; this one {_is(run)}.")
        if run.asked_for:
            raise ActionError(f"{run.asked_by} has asked for a pause already. The current move ends first.")
        if run.is_driven(current.now):
            current.set(asked_for=PAUSE, asked_by=actor)
            current.event("run.pause_asked")
            return False
        _take_from_driver(current)
        # Its worker died and nobody will take the run over now: what the call reserved must not stay held.
        sentence = "The worker process ended in the middle of this turn."
        close_attempts(current, kind="worker_lost", sentence=sentence)
        current.set(
            status=RunStatus.PAUSED,
            reason=ASKED,
            explanation=f"Paused by {actor}.",
            waiting_since=run.waiting_since or current.now,
        )
        current.event("run.paused", reason=ASKED)
    return True


def resume_run(*, run_id: int, actor: str, limits: Mapping[str, str] | None = None) -> None:
    """A person says that the reason of the pause is gone: the run goes on where it was.

    `limits` are raised first, such as cost_usd to 5; a run that paused at a limit needs that one higher, and
    one that a shared budget holds back needs the budget changed. A pause that was asked for and did not
    come yet is taken back.
    """
    with change(run_id, actor=actor) as current:
        run = current.run
        if run.asked_for:
            current.set(asked_for="", asked_by="")
            current.event("run.resumed")
            return
        if run.status != RunStatus.PAUSED:
            raise ActionError(f"Only a paused run can be resumed; this one {_is(run)}.")
        raised = _raised(run, limits or {})
        if run.reason in run.frozen["limits"] and run.reason not in raised:
            limit = run.frozen["limits"][run.reason]
            raise ActionError(f"It would pause again at its limit {run.reason} {limit}. Give a higher one.")
        if run.retry_at is not None and run.retry_at > current.now:
            raise ActionError(
                "It would pause again: the budget that it shares with other runs is used up. "
                "Raise that budget, and the run goes on by itself."
            )
        _keep_raised(current, raised)
        go_on(current, summary=f"Resumed by {actor}.", **({"limits": raised} if raised else {}))


def go_on(current: Change, *, summary: str, **data: Any) -> None:
    """Inside a change: a paused run is queued where it was; the data goes into the event."""
    end_waiting(current)
    # A note without words for the model: what failed before it no longer decides what comes next.
    mark = create_note(current, name=RESUMED, text="", summary=summary)
    current.set(status=RunStatus.QUEUED, reason="", explanation="", retry_at=None)
    current.event("run.resumed", step=mark.seq, **data)


def retry_run(*, run_id: int, actor: str, limits: Mapping[str, str] | None = None) -> None:
    """Let a failed or stopped run go on after its last good step; `limits` are raised, such as cost_usd to 5.

    What was paid and counted stays so. One that was stopped by a limit needs a higher one.
    """
    with change(run_id, actor=actor) as current:
        run = current.run
        if run.status not in {RunStatus.FAILED, RunStatus.STOPPED}:
            raise ActionError(f"Only a failed or stopped run can be retried; this one {_is(run)}.")
        if run.handed_over:
            raise ActionError("Its work goes on in another run: steer that one, or fork this one.")
        raised = _raised(run, limits or {})
        stopped = run.status == RunStatus.STOPPED
        ask_for_more = run.reason in run.frozen["limits"] and run.reason not in FORGOTTEN
        if stopped and ask_for_more and run.reason not in raised:
            limit = run.frozen["limits"][run.reason]
            raise ActionError(f"It would stop again at its limit {run.reason} {limit}. Give a higher one.")
        if stopped and (budget := budget_of(run.reason)) and _is_the_same(budget, run, current):
            raise ActionError(f"It would stop again: the budget {budget.title} is used up. Raise it first.")
        mark = create_note(
            current, name=RETRIED, text=GO_ON if stopped else "", summary=f"Retried by {actor}."
        )
        _keep_raised(current, raised)
        current.set(
            status=RunStatus.QUEUED,
            reason="",
            explanation="",
            final_response="",
            ended_at=None,
            retry_at=None,
        )
        current.event("run.retried", step=mark.seq, limits=raised)


def _take_from_driver(current: Change) -> None:
    """Nobody drives the run from now on; the next write of a driver fails."""
    until = current.run.lease_until
    stop_clock(current, min(until, current.now) if until else None)
    current.set(
        fence=current.run.fence + 1,
        lease_owner="",
        lease_until=None,
        retry_at=None,
        asked_for="",
        asked_by="",
    )


def _raised(run: Run, wanted: Mapping[str, str]) -> dict[str, dict[str, str | int]]:
    """Old and new value of each limit that is to be raised."""
    limits = _by_name(run) if wanted else {}
    raised: dict[str, dict[str, str | int]] = {}
    for name, text in wanted.items():
        if name == run.reason and name not in run.frozen["limits"]:
            raise ActionError("It is no limit that holds this run, so there is none to raise. Leave it out.")
        if name not in limits:
            raise ActionError(f"There is no limit {quoted(name)}. Known: {', '.join(sorted(limits))}.")
        new = _amount(name, text)
        if new <= Decimal(str(limits[name])):
            raise ActionError(f"The limit {name} is {limits[name]} already. Give a higher one.")
        raised[name] = {"old": limits[name], "new": f"{new:f}" if name == "cost_usd" else int(new)}
    return raised


def _is_the_same(budget: Budget, run: Run, current: Change) -> bool:
    """Whether the budget that stopped this run has neither changed nor begun a new period since."""
    ended_at = run.ended_at or current.now
    same_period = period_start(budget.period, ended_at) == period_start(budget.period, current.now)
    still_shared = Budget.objects.filter(applying(run), pk=budget.pk).exists()
    return same_period and budget.set_at <= ended_at and still_shared


def _keep_raised(current: Change, raised: dict[str, dict[str, str | int]]) -> None:
    if raised:
        current.set(limits=_with(current.run, raised))


def _by_name(run: Run) -> dict[str, str | int]:
    """The limits that hold, each under the name it is raised by: calls_per_tool.search_logs for one tool."""
    limits = Limits.from_data(run.frozen["limits"]).as_data()
    return limits | {f"{PER_TOOL}.{tool}": count for tool, count in limits.pop(PER_TOOL).items()}


def _with(run: Run, raised: Mapping[str, Mapping[str, str | int]]) -> str:
    """The changed limits of the run as JSON, with these raised."""
    kept: dict[str, Any] = json.loads(run.limits) if run.limits else {}
    per_tool = dict(run.frozen["limits"].get(PER_TOOL, {}))
    for name, now in raised.items():
        if name.startswith(f"{PER_TOOL}."):
            per_tool[name.removeprefix(f"{PER_TOOL}.")] = now["new"]
            kept[PER_TOOL] = per_tool
        else:
            kept[name] = now["new"]
    return json.dumps(kept)


def _amount(name: str, text: str) -> Decimal:
    amount = read_amount(text)
    whole = name == "cost_usd" or (amount is not None and amount == amount.to_integral_value())
    if amount is None or not whole or amount > LARGEST_LIMIT:
        kind = "an amount in USD" if name == "cost_usd" else "a whole number"
        raise ActionError(f"The limit {name} cannot be {quoted(text)}. Give {kind}, such as 5.")
    return amount


def _is(run: Run) -> str:
    """The status as the end of a sentence."""
    words = {RunStatus.SUCCEEDED: "succeeded", RunStatus.STOPPED: "was stopped", RunStatus.FAILED: "failed"}
    return words.get(RunStatus(run.status), f"is {run.status}")
