"""Drive a run: decide, act, record, until it is parked or over. All that matters is in its rows."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from django.db import InterfaceError, OperationalError
from django.utils import timezone

from runs import actions
from runs.actions import Lease
from runs.agents import Limits
from runs.engine import calls, moves, reconciling, turns
from runs.engine.history import history, load_steps
from runs.engine.limits import Spent
from runs.engine.model import NoModel
from runs.models import Run, RunStatus, Step, StepKind, StepStatus
from runs.money import unit_prices

logger = logging.getLogger(__name__)

SUMMARY_REQUEST = (
    "{sentence} Do not call tools any more. Say in a short plain text what you found, with the evidence, "
    "what was done, and what a person should do next."
)
CONTINUE_REQUEST = "Please continue: give your answer, or call the next tool."


def drive(lease: Lease, should_stop: Callable[[], bool]) -> None:
    """Make moves until the run is parked, paused or over, or should_stop() is true between two moves.

    Never raises: a lost lease or database ends the driving, and whoever comes next goes on from the rows;
    an error of ours ends the run with a reference to the log.
    """
    try:
        _drive(lease, should_stop)
    except actions.LeaseLost:
        logger.info("run %s was cancelled or is driven by another; what came late is dropped", lease.run_id)
    except (OperationalError, InterfaceError) as error:
        logger.warning("run %s left alone, the database does not answer: %s", lease.run_id, error)
    except Exception:
        logger.exception("run %s could not even be ended", lease.run_id)


def _drive(lease: Lease, should_stop: Callable[[], bool]) -> None:
    try:
        while not should_stop():
            if not perform(lease):
                return
        actions.hand_back(lease)
    except NoModel as error:
        actions.pause(lease, reason="no_model", explanation=str(error))
    except (actions.LeaseLost, OperationalError, InterfaceError):
        raise
    except Exception:
        reference = uuid.uuid4().hex[:8]
        logger.exception("run %s failed, reference %s", lease.run_id, reference)
        actions.end_run(  # so that it does not crash one worker after another
            lease,
            status=RunStatus.FAILED,
            reason="internal_error",
            explanation=f"agentops made a mistake. Its log has the details under reference {reference}.",
        )


def perform(lease: Lease) -> bool:
    """Decide on one move and make it; False when this driver has nothing more to do."""
    run = Run.objects.get(pk=lease.run_id)
    steps = load_steps(run)
    now = situation(run, steps)
    move = moves.decide(now)
    if isinstance(move, moves.WrapUp | moves.Finish) and moves.is_about_size(move):
        # The bound by bytes does not fit; the API's own count of the prompt may.
        counted = min(turns.count_prompt(run, steps), now.history.prompt_tokens)
        move = moves.decide(replace(now, history=replace(now.history, prompt_tokens=counted)))
    return make(lease, run, steps, move)


def make(lease: Lease, run: Run, steps: list[Step], move: moves.Move) -> bool:
    """Make this move; False when the driver is done with the run."""
    match move:
        case moves.CallModel():
            turns.call_model(lease, run, steps, move)
        case moves.Authorize(seqs):
            for seq in seqs:
                calls.authorize(lease, run, steps, _step(steps, seq))
        case moves.RunTools(seqs):
            calls.run_tools(lease, run, steps, seqs)
        case moves.Recover(cut_off, attempt):
            waits = [calls.recover(lease, run, _step(steps, seq)) for seq in cut_off]
            if attempt is not None:
                turns.abandon(lease, _step(steps, attempt))
            if until := max((time for time in waits if time), default=None):
                return not actions.park(lease, until=until, reason="probe", explanation=reconciling.WAITS)
        case moves.Tell():
            actions.tell_outcomes(lease)
        case moves.WrapUp(limit, sentence):
            text = SUMMARY_REQUEST.format(sentence=sentence)
            actions.add_note(lease, name=f"{moves.WRAP_UP}:{limit}", text=text, summary=sentence)
        case moves.Continue():
            actions.add_note(lease, name=moves.CONTINUE, text=CONTINUE_REQUEST, summary=CONTINUE_REQUEST)
        case moves.Park(until, reason, explanation):
            return not actions.park(lease, until=until, reason=reason, explanation=explanation)
        case moves.Pause(reason, explanation):
            actions.pause(lease, reason=reason, explanation=explanation)
            return False
        case moves.Finish(status, reason, explanation):
            actions.end_run(
                lease,
                status=RunStatus(status),
                reason=reason,
                explanation=explanation,
                final_response=_answer(steps) if status != "failed" else "",
            )
            return False
    return True


def situation(run: Run, steps: list[Step]) -> moves.Situation:
    """What the decision depends on, from these rows."""
    now = timezone.now()
    facts = history(run, steps)
    configuration = run.frozen
    return moves.Situation(
        history=facts,
        limits=Limits.from_data(configuration["limits"]),
        spent=_spent(run, steps, now),
        max_tokens=configuration["max_tokens"],
        largest_answer=configuration["largest_answer"],
        prices=unit_prices(configuration["model"], at=now, prompt_tokens=facts.prompt_tokens),
        now=now,
        pause_asked_by=run.asked_by if run.asked_for == actions.PAUSE else "",
        untold=run.untold,
    )


def _spent(run: Run, steps: list[Step], now: datetime) -> Spent:
    """Totals of the run. What an attempt that broke off really cost is unknown: all it reserved counts."""
    tokens, cost = run.total_tokens, run.cost_usd
    for step in steps:
        if step.usage_estimated or step.status == StepStatus.RUNNING:
            tokens += max(0, step.reserved_tokens - step.total_tokens)
            cost += max(Decimal(0), (step.reserved_usd or Decimal(0)) - (step.cost_usd or Decimal(0)))
    return Spent(
        steps=run.step_count,
        tool_calls=run.tool_calls,
        tokens=tokens,
        cost_usd=cost,
        active_seconds=run.active_seconds(now),
    )


def _step(steps: list[Step], seq: int) -> Step:
    return next(step for step in steps if step.seq == seq)


def _answer(steps: list[Step]) -> str:
    """The text of the last complete turn, unless it went on to call tools."""
    turns_made = [s for s in steps if s.kind == StepKind.MODEL and s.status == StepStatus.SUCCEEDED]
    if not turns_made or any(step.parent_id == turns_made[-1].pk for step in steps):
        return ""
    return turns_made[-1].text
