"""Drive a run: decide, act, record, until it is parked or over. All that matters is in its rows."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from django.utils import timezone

from runs import actions, pool
from runs.actions import Lease
from runs.agents import Limits
from runs.engine import calls, decision, handing_over, moves, repeats, revising, turns
from runs.engine.acts import Act, Record, Standing, nothing
from runs.engine.history import final_answer, history
from runs.engine.limits import Spent
from runs.engine.model import NoModel
from runs.engine.patience import UNREACHABLE, Patience
from runs.engine.rooms import Room, shared
from runs.models import CONTINUED, AtLimit, Run, RunStatus, Step, StepStatus
from runs.models.prices_in_force import look, unit_prices

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
    except UNREACHABLE as error:
        logger.warning("run %s left alone, the database does not answer: %s", lease.run_id, error)
    except Exception:
        logger.exception("run %s could not even be ended", lease.run_id)


def _drive(lease: Lease, should_stop: Callable[[], bool]) -> None:
    try:
        if unproven := actions.why_not_its_limits(lease.run_id):
            said = f"The record contradicts this run, so it stops. {unproven} Start a new run instead."
            actions.end_run(lease, status=RunStatus.FAILED, reason="contradicted", explanation=said)
            return
        _advance_to_the_end(Driver(lease), should_stop)
    except NoModel as error:
        actions.pause(lease, reason="no_model", explanation=str(error))
    except (actions.LeaseLost, *UNREACHABLE):
        raise
    except Exception:
        reference = uuid.uuid4().hex[:8]
        logger.exception("run %s failed, reference %s", lease.run_id, reference)
        _end_after_a_mistake(lease, reference)


def _advance_to_the_end(driver: Driver, should_stop: Callable[[], bool]) -> None:
    """From act to act. While the database does not answer, what the last act brought is not let go."""
    patience = Patience()
    record: Record | None = None
    while True:
        try:
            if actions.was_committed(driver.lease):
                record = None
            act = driver.advance(record, should_stop)
        except UNREACHABLE as error:
            patience.wait(error, record)
            continue
        if act is None:
            return
        patience.renew()
        pool.give_back()  # an act may take long, and has no need of it
        record = act()


def _end_after_a_mistake(lease: Lease, reference: str) -> None:
    """End the run, so that it does not crash one worker after another; where that fails, too, pause it."""
    said = f"agentops made a mistake. Its log has the details under reference {reference}."
    try:
        actions.end_run(lease, status=RunStatus.FAILED, reason="internal_error", explanation=said)
    except (actions.LeaseLost, *UNREACHABLE):
        raise
    except Exception:
        logger.exception("run %s could not be ended, reference %s", lease.run_id, reference)
        actions.pause(lease, reason="internal_error", explanation=said)


class Driver:
    """Advances one run from act to act.

    One transaction holds what came of the last act, every decision that needs no act, and the start of the
    next one: what is done outside of it was announced in it.
    """

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self._counted: int | None = None  # tokens of the next prompt by the API's own count
        self.is_counting = False  # the act that comes next only asks for that, and nothing has begun

    def advance(self, record: Record | None, should_stop: Callable[[], bool]) -> Act | None:
        """Record what the last act brought and decide up to the next one; None when there is none."""
        while True:
            try:
                with actions.together(self.lease):
                    if record is not None and record.store() is Standing.OVER:
                        return None
                    return self._next_act(should_stop)
            except actions.BudgetUsedUp as full:  # another run was faster: it is decided again
                logger.info("run %s decides again: %s", self.lease.run_id, full)
                if self._store_alone(record) is Standing.OVER:
                    return None
                record = None
                if isinstance(full, actions.LedgerMissing):
                    actions.open_ledgers()
            except actions.LeaseLost:
                if record is not None:
                    record.when_lost()
                raise
            except UNREACHABLE:
                raise
            except Exception:
                self._store_alone(record)
                raise

    def _store_alone(self, record: Record | None) -> Standing | None:
        """What was done is not lost by what stands in the way of the next move."""
        if record is None:
            return None
        try:
            with actions.together(self.lease):
                return record.store()
        except actions.LeaseLost:
            record.when_lost()
            raise

    def _next_act(self, should_stop: Callable[[], bool]) -> Act | None:
        while not should_stop():
            run, steps = actions.driven(self.lease)
            begun = self._begin(run, steps, self._decide(run, steps))
            if begun is Standing.OVER:
                return None
            if begun is not Standing.GO_ON:
                return begun
        actions.hand_back(self.lease)
        return None

    def _decide(self, run: Run, steps: list[Step]) -> moves.Move:
        now = situation(run, steps)
        if self._counted is not None:
            tokens = min(self._counted, now.history.prompt_tokens)
            now = replace(now, history=replace(now.history, prompt_tokens=tokens))
        move = decision.decide(now)
        about_prices = isinstance(move, moves.CallModel) or moves.is_about_size(move)
        return self._decide(run, steps) if about_prices and look() else move  # with what people changed

    def _count(self, run: Run, steps: list[Step]) -> Act:
        """Ask the API how large the next prompt is: the bound by bytes does not fit, its count may."""
        body = turns.body_to_count(run, steps)

        def act() -> Record:
            self._counted = turns.count_prompt(self.lease, run, body)
            return Record(nothing)

        return act

    def _begin(self, run: Run, steps: list[Step], move: moves.Move) -> Act | Standing:
        """Record the beginning of this move; what has to be done outside, or how it stands."""
        self.is_counting = self._counted is None and moves.is_about_size(move)
        if self.is_counting:
            return self._count(run, steps)
        self._counted = None
        return begin(self.lease, run, steps, move)


def begin(lease: Lease, run: Run, steps: list[Step], move: moves.Move) -> Act | Standing:
    """Record the beginning of this move; what has to be done outside, or how it stands."""
    match move:
        case moves.CallModel():
            return turns.begin_turn(lease, run, steps, move)
        case moves.Authorize(seqs):
            return calls.authorize(lease, run, steps, seqs) or Standing.GO_ON
        case moves.Revise():
            return revising.begin(lease, run, steps) or Standing.GO_ON
        case moves.RunTools(seqs):
            return calls.begin_calls(lease, run, steps, seqs) or Standing.GO_ON
        case moves.Recover(cut_off, attempt):
            if attempt is not None:
                turns.abandon(lease, steps[attempt - 1])
            return calls.recover(lease, run, steps, cut_off) or Standing.GO_ON
        case moves.Tell():
            actions.tell_outcomes(lease)
        case moves.WrapUp(limit, sentence):
            request = handing_over.REQUEST if limit == CONTINUED else SUMMARY_REQUEST
            text = request.format(sentence=sentence)
            actions.wrap_up_at_budget(lease, limit)
            actions.add_note(lease, name=f"{moves.WRAP_UP}:{limit}", text=text, summary=sentence)
        case moves.Continue():
            actions.add_note(lease, name=moves.CONTINUE, text=CONTINUE_REQUEST, summary=CONTINUE_REQUEST)
        case _:
            return _let_go(lease, run, steps, move)
    return Standing.GO_ON


def _let_go(lease: Lease, run: Run, steps: list[Step], move: moves.Move) -> Standing:
    """Park, pause, hand over or end the run: nothing more is to be done by this driver."""
    match move:
        case moves.Park(until, reason, explanation):
            parked = actions.park(lease, until=until, reason=reason, explanation=explanation)
            return Standing.OVER if parked else Standing.GO_ON
        case moves.Pause(reason, explanation, Room() as room, until):
            paused = _pause_at(lease, room, until, reason, explanation)
            return Standing.OVER if paused else Standing.GO_ON
        case moves.Pause(reason, explanation):
            actions.pause(lease, reason=reason, explanation=explanation)
            return Standing.OVER
        case moves.HandOver(explanation):
            now = situation(run, steps)
            limits = handing_over.left(run, steps, now.limits, now.spent).as_data()
            summary = handing_over.summary(steps, final_answer(steps))
            actions.hand_over(lease, summary=summary, limits=limits, explanation=explanation)
            return Standing.OVER
        case moves.Finish(status, reason, explanation):
            actions.end_run(
                lease,
                status=RunStatus(status),
                reason=reason,
                explanation=explanation,
                final_response=final_answer(steps) if status != "failed" else "",
            )
            return Standing.OVER
    return Standing.GO_ON


def _pause_at(lease: Lease, room: Room, until: datetime | None, reason: str, explanation: str) -> bool:
    return actions.pause_at_budget(
        lease,
        budget_id=room.budget,
        revision=room.revision,
        reason=reason,
        explanation=explanation,
        until=until,
    )


def situation(run: Run, steps: list[Step]) -> moves.Situation:
    """What the decision depends on, from these rows."""
    now = timezone.now()
    facts = history(run, steps)
    configuration = run.frozen
    limits = Limits.from_data(configuration["limits"])
    return moves.Situation(
        history=facts,
        limits=limits,
        spent=_spent(run, steps, now),
        max_tokens=configuration["max_tokens"],
        largest_answer=configuration["largest_answer"],
        prices=unit_prices(configuration["model"], at=now, prompt_tokens=facts.prompt_tokens),
        now=now,
        pause_asked_by=run.asked_by if run.asked_for == actions.PAUSE else "",
        at_limit=configuration.get("at_limit", AtLimit.WRAP_UP),
        shared=shared(run, steps, now),
        context_window=handing_over.window(configuration["model"], limits),
        untold=run.untold,
        unchecked_edits=run.unchecked_edits,
        takeovers=run.takeovers,
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
        repeats=repeats.fruitless_turns(steps),
    )
