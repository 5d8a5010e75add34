"""Budgets that runs share: people set and remove them, and runs that one holds back go on when it allows.

Each change of a budget stands in a history that is only added to. The amounts are booked in `ledger`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from runs.actions.budget_notices import forget_thresholds, tell_full, tell_thresholds
from runs.actions.budget_values import LIMITS, checked_key, checked_values
from runs.actions.change import Change, Lease, change, one_writer
from runs.actions.claims import set_paused
from runs.actions.controls import go_on
from runs.actions.errors import UnknownBudget
from runs.actions.ledger import keep_ledgers_closed, keep_writers_out, locked, open_for
from runs.hints import NO_RUN, announce
from runs.models import AtLimit, Budget, BudgetChange, BudgetHold, Run, RunStatus, Spending
from runs.models.budget import REASON, UNPRICED, budget_of, period_start

logger = logging.getLogger(__name__)


def set_budget(
    *,
    actor: str,
    scope: str,
    agent: str = "",
    user: str = "",
    tag: str = "",
    period: str,
    tool: str = "",
    limits: Mapping[str, str],
    at_limit: str = AtLimit.WRAP_UP,
    thresholds: str | None = None,
) -> Budget:
    """Set the budget of this scope, period and tool to these limits; a limit that is not named is none.

    It holds from now on and counts what was spent since its period began. Where it became wider, the runs
    that it had paused go on. `limits` are texts such as {"cost_usd": "50"}; `user` is a user name;
    `thresholds` are percents such as "50, 80, 100", the usual ones when it is None. Raises ActionError.
    """
    key = checked_key(scope, agent=agent, user=user, tag=tag, period=period, tool=tool)
    values = checked_values(limits, tool=tool, at_limit=at_limit, thresholds=thresholds)
    now = timezone.now()
    with one_writer(), transaction.atomic():
        keep_writers_out()
        budget = Budget.objects.select_for_update().filter(**key).first()
        before = budget.values if budget else None
        if budget is None:
            budget = Budget.objects.create(**key, **values, set_by=actor, set_at=now)
            open_for([budget], now)
        for name, value in values.items():
            setattr(budget, name, value)
        if before == budget.values:
            return budget
        budget.set_by, budget.set_at = actor, now
        budget.revision += before is not None
        budget.save()
        _look_at_thresholds(budget, now)
        _record(budget, before, budget.values, actor, now)
    if before is not None and _is_wider(before, budget.values):
        _let_go_on(budget, actor=actor, why=f"The budget {budget.title} was changed by {actor}.")
    return budget


def remove_budget(*, budget_id: int, actor: str) -> str:
    """Limit this no longer; the runs that it had paused go on. Its title. Raises UnknownBudget."""
    with one_writer(), transaction.atomic():
        keep_writers_out()
        budget = Budget.objects.select_for_update().filter(pk=budget_id).first()
        if budget is None:
            raise UnknownBudget("This budget was removed already.")
        _record(budget, budget.values, None, actor, timezone.now())
        Budget.objects.filter(pk=budget_id).delete()
    _let_go_on(budget, actor=actor, why=f"The budget {budget.title} was removed by {actor}.")
    return budget.title


def pause_at_budget(
    lease: Lease, *, budget_id: int, revision: int, reason: str, explanation: str, until: datetime | None
) -> bool:
    """Pause this run until its budget is raised, or until the time at which its next period begins.

    False when the budget is not the one that was read: go on driving, and decide again.
    """
    with change(lease.run_id, actor=lease.owner, lease=lease) as current:
        # Locked, so that whoever raises it either comes first or finds this run paused. Steps come before
        # budgets in the order of locks, and so do ledgers.
        keep_ledgers_closed()
        locked(current, current.now)
        now = Budget.objects.select_for_update(no_key=True).filter(pk=budget_id).first()
        if now is None or now.revision != revision:
            return False
        _hold_back(current, now, AtLimit.PAUSE, is_full=not reason.endswith(UNPRICED))
        set_paused(current, reason=reason, explanation=explanation, until=until)
    return True


def wrap_up_at_budget(lease: Lease, reason: str) -> None:
    """Part of the change that lets this run wrap up: the budget of this reason, if it is one, is full."""
    if (budget := budget_of(reason)) is not None:
        with change(lease.run_id, actor=lease.owner, lease=lease, remembers=True) as current:
            _hold_back(current, budget, AtLimit.WRAP_UP, is_full=True)


def release_from(current: Change, tag: str) -> None:
    """Inside the change that has taken this tag off: its budget holds the run back no longer."""
    run = current.run
    budget = budget_of(run.reason) if run.status == RunStatus.PAUSED else None
    if budget is not None and budget.tag == tag:
        go_on(current, summary=f"The tag {tag} was taken off by {current.actor}.", budget=budget.pk)


def let_go_on_where_room(budgets: Iterable[Budget], *, actor: str, why: str) -> None:
    """Runs that these budgets have paused go on, where less is used than is allowed by now."""
    now = timezone.now()
    for budget in budgets:
        ledgers = Spending.objects.filter(budget=budget, starts_on=period_start(budget.period, now))
        for ledger in ledgers:
            if all(
                getattr(budget, name) is None or getattr(ledger, name) < getattr(budget, name)
                for name in LIMITS
            ):
                _let_go_on(budget, actor=actor, why=why)
                break


def resume_after_budgets(now: datetime) -> int:
    """Let the runs go on whose budget has begun a new period; how many."""
    due = Run.objects.filter(status=RunStatus.PAUSED, reason__startswith=REASON, retry_at__lte=now)
    return _resume(due.values_list("pk", flat=True), "calendar", "A new period of the budget began.", {})


def look_at_budgets_again(*, actor: str, why: str, unpriced: bool) -> int:
    """Prices are others now: runs that a budget holds back decide again, and pause again without room.

    With `unpriced` only those whose model had no price. How many go on.
    """
    held = Run.objects.filter(status=RunStatus.PAUSED, reason__startswith=REASON)
    if unpriced:
        held = held.filter(reason__endswith=UNPRICED)
    return _resume(held.values_list("pk", flat=True), actor, why, {})


def _let_go_on(budget: Budget, *, actor: str, why: str) -> int:
    """Exactly the runs that this budget has paused."""
    held = Run.objects.filter(status=RunStatus.PAUSED, reason__in=budget.reasons)
    return _resume(held.values_list("pk", flat=True), actor, why, {"budget": budget.pk}, budget.reasons)


def _resume(
    run_ids: Any, actor: str, why: str, data: dict[str, Any], reasons: list[str] | None = None
) -> int:
    resumed = 0
    for run_id in list(run_ids):
        try:
            with change(run_id, actor=actor) as current:
                run = current.run
                named = run.reason in reasons if reasons else run.reason.startswith(REASON)
                if run.status == RunStatus.PAUSED and named:
                    go_on(current, summary=why, **data)
                    resumed += 1
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # one row that cannot be written must not keep all others waiting
            logger.exception("run %s could not be resumed", run_id)
    return resumed


def _hold_back(current: Change, budget: Budget, how: AtLimit, *, is_full: bool) -> None:
    """Inside the change that pauses this run or lets it wrap up because of its budget."""
    BudgetHold.objects.create(budget=budget, run=current.run, at_limit=how, at=current.now)
    for ledger in locked(current, current.now):
        if is_full and ledger.budget_id == budget.pk:
            tell_full(ledger, current.now, current.run)


def _look_at_thresholds(budget: Budget, now: datetime) -> None:
    """Inside the transaction that has set this budget: what is reached under its limits is told."""
    ledgers = Spending.objects.select_for_update(of=("self",)).select_related("budget")
    for ledger in ledgers.filter(budget=budget, starts_on=period_start(budget.period, now)):
        forget_thresholds(ledger)
        tell_thresholds(ledger, now)


def _record(
    budget: Budget, before: dict[str, Any] | None, after: dict[str, Any] | None, actor: str, now: datetime
) -> None:
    BudgetChange.objects.create(
        budget=budget.pk,
        title=budget.title,
        before=json.dumps(before) if before else "",
        after=json.dumps(after) if after else "",
        actor=actor,
        at=now,
    )
    announce(NO_RUN)


def _is_wider(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a run that it held back may find room now, or has another way to end."""
    if before["at_limit"] != after["at_limit"]:
        return True
    pairs = [(before[name], after[name]) for name in LIMITS if before[name] is not None]
    return any(new is None or Decimal(new) > Decimal(old) for old, new in pairs)
