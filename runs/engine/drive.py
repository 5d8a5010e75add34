"""Drive a run: decide, act, record, until it is parked or over. All that matters is in its rows."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.utils import timezone

from runs import actions
from runs.actions import Lease
from runs.agents import Limits
from runs.engine import calls, moves, turns
from runs.engine.history import Attempt, History, history, load_steps
from runs.engine.limits import Spent
from runs.engine.model import NoModel
from runs.models import Run, RunStatus, Step
from runs.money import unit_prices

logger = logging.getLogger(__name__)

SUMMARY_REQUEST = (
    "{sentence} Do not call tools any more. Say in a short plain text what you found, with the evidence, "
    "what was done, and what a person should do next."
)
CONTINUE_REQUEST = "Please continue: give your answer, or call the next tool."


def drive(lease: Lease, should_stop: Callable[[], bool]) -> None:
    """Make moves until the run is parked, paused or over, or should_stop() is true between two moves.

    Never raises: a lost lease ends the driving in silence, an error of ours ends the run with a reference.
    """
    try:
        while not should_stop():
            if not perform(lease):
                return
        actions.hand_back(lease)
    except actions.LeaseLost:
        logger.info("run %s is driven by another worker now", lease.run_id)
    except NoModel as error:
        actions.pause(lease, reason="no_model", explanation=str(error))
    except (OperationalError, InterfaceError) as error:
        # Not a fault of the run: the lease runs out, and whoever can reach the database goes on.
        logger.warning("run %s left alone, the database does not answer: %s", lease.run_id, error)
    except Exception:
        reference = uuid.uuid4().hex[:8]
        logger.exception("run %s failed, reference %s", lease.run_id, reference)
        _give_up(lease, reference)


def perform(lease: Lease) -> bool:
    """Decide on one move and make it; False when this driver has nothing more to do."""
    run = Run.objects.get(pk=lease.run_id)
    steps = load_steps(run)
    facts = history(run, steps)
    match moves.decide(situation(run, facts)):
        case moves.CallModel() as move:
            turns.call_model(lease, run, steps, move)
        case moves.Authorize(seqs):
            for seq in seqs:
                calls.authorize(lease, run, _step(steps, seq))
        case moves.RunTools(seqs):
            for seq in seqs:
                calls.run_tool(lease, run, _step(steps, seq))
        case moves.Recover(cut_off, attempt):
            for seq in cut_off:
                calls.recover(lease, _step(steps, seq))
            if attempt is not None:
                turns.abandon(lease, run, _step(steps, attempt), facts.prompt_bytes)
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
                final_response=_answer(facts, steps) if status != "failed" else "",
            )
            return False
    return True


def situation(run: Run, facts: History) -> moves.Situation:
    """What the decision depends on, from these rows."""
    now = timezone.now()
    configuration = run.frozen
    return moves.Situation(
        history=facts,
        limits=Limits.from_data(configuration["limits"]),
        spent=Spent(
            steps=run.step_count,
            tool_calls=run.tool_calls,
            tokens=run.total_tokens,
            cost_usd=run.cost_usd,
            active_seconds=run.active_seconds(now),
        ),
        max_tokens=configuration["max_tokens"],
        prices=unit_prices(configuration["model"], at=now, prompt_tokens=facts.prompt_bytes),
        now=now,
    )


def _step(steps: list[Step], seq: int) -> Step:
    return next(step for step in steps if step.seq == seq)


def _answer(facts: History, steps: list[Step]) -> str:
    """The text of the last complete turn; empty when the run ended before one."""
    for item in reversed(facts.items):
        if isinstance(item, Attempt) and item.status == "succeeded":
            return _step(steps, item.seq).text if not item.calls else ""
    return ""


def _give_up(lease: Lease, reference: str) -> None:
    """End the run, so that it does not crash one worker after another."""
    try:
        actions.end_run(
            lease,
            status=RunStatus.FAILED,
            reason="internal_error",
            explanation=f"agentops made a mistake. Its log has the details under reference {reference}.",
        )
    except actions.LeaseLost:
        logger.info("run %s is driven by another worker now", lease.run_id)
