"""Budgets that runs share are held here, inside the transactions that spend.

What makes it hold: whoever writes a step writes it first and looks for budgets afterwards, and whoever
opens a ledger keeps all writers of steps out meanwhile. So a ledger that exists has every attempt that is
under way in it, either because the attempt reserved there or because the ledger was opened from its row.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from django.db import connection, transaction
from django.utils import timezone

from runs.actions.change import Change, one_writer
from runs.actions.errors import BudgetUsedUp, LedgerMissing
from runs.models import Budget, Spending, Step
from runs.models.budget import (
    amounts_of_steps,
    applying,
    counted,
    period_bounds,
    period_start,
)


class _Seen:
    """Whether this process saw a budget when it last looked. A hint for decisions; locks do not use it."""

    any = True


def may_have_budgets() -> bool:
    """False when the last look of this process found none: a decision need not ask, the booking will."""
    return _Seen.any


def reserve(current: Change, step: Step) -> None:
    """Inside the change that stores this attempt: put its worst case aside in every budget that applies.

    Raises BudgetUsedUp when it does not fit into one or when a ledger is not open yet; the whole change is
    undone then, and the driver decides again from fresh rows.
    """
    if not _any_budget(current):
        return
    usd = step.reserved_usd or Decimal(0)
    ledgers = _locked(current, step.started_at)
    if len(ledgers) < Budget.objects.filter(applying(current.run.agent)).count():
        raise LedgerMissing("The ledger of a budget is not open yet.")
    for ledger in (ledger for ledger in ledgers if not ledger.budget.tool):
        budget = ledger.budget
        if budget.tokens is not None:
            _must_fit(budget, ledger.tokens + ledger.reserved_tokens + step.reserved_tokens, budget.tokens)
        if budget.cost_usd is not None:
            if step.reserved_usd is None:
                raise BudgetUsedUp(f"The model has no price, and {budget.title} is in USD.")
            _must_fit(budget, ledger.cost_usd + ledger.reserved_usd + usd, budget.cost_usd)
        ledger.reserved_tokens += step.reserved_tokens
        ledger.reserved_usd += usd
        ledger.save(update_fields=["reserved_tokens", "reserved_usd"])


def settle_attempt(current: Change, step: Step) -> None:
    """Inside the change that has saved the end of this attempt: release what it reserved, add what counts.

    In the period in which it started; a ledger that is not open then will be opened from the row.
    """
    if not _any_budget(current):
        return
    tokens, usd = counted(step)
    for ledger in _locked(current, step.started_at):
        if ledger.budget.tool:
            continue
        ledger.reserved_tokens -= step.reserved_tokens
        ledger.reserved_usd -= step.reserved_usd or Decimal(0)
        ledger.tokens += tokens
        ledger.cost_usd += usd
        ledger.save(update_fields=["reserved_tokens", "reserved_usd", "tokens", "cost_usd"])


def why_no_call(current: Change, step: Step) -> str:
    """Inside the change that has locked this call: why no budget has room for it; empty when it may start.

    A call counts once, when it first starts: neither a proposal nor a further attempt does.
    """
    if step.counted_at is not None:
        return ""
    keep_ledgers_closed()
    if not _any_budget(current):
        return ""
    for ledger in _ledgers_of(current, step):
        budget = ledger.budget
        if budget.tool_calls is not None and ledger.tool_calls >= budget.tool_calls:
            until = period_bounds(budget.period, ledger.starts_on)[1]
            what = f"calls of {budget.tool}" if budget.tool else "tool calls"
            return (
                f"The budget of {budget.tool_calls} {what} ({budget.title}) is used up until "
                f"{until:%Y-%m-%d %H:%M} UTC. It did not run. Do not retry it: go on without it, and say "
                "what it would have been for."
            )
    return ""


def count_call(current: Change, step: Step) -> None:
    """Inside the change that starts this call: it counts now. The caller saves `counted_at`."""
    if step.counted_at is not None:
        return
    step.counted_at = current.now
    if not _any_budget(current):
        return
    for ledger in _ledgers_of(current, step):
        ledger.tool_calls += 1
        ledger.save(update_fields=["tool_calls"])


def open_ledgers(now: datetime | None = None) -> None:
    """Open the ledger of each budget for the period of this moment, where it is missing."""
    with one_writer(), transaction.atomic():
        keep_writers_out()
        open_for(Budget.objects.all(), now or timezone.now())


def open_for(budgets: Iterable[Budget], now: datetime) -> None:
    """Inside a transaction that keeps writers out: open ledgers that are missing, from the steps."""
    for budget in budgets:
        starts_on = period_start(budget.period, now)
        for simulated in (False, True):
            key = {"budget": budget, "starts_on": starts_on, "simulated": simulated}
            if not Spending.objects.filter(**key).exists():
                amounts = amounts_of_steps(budget, starts_on, simulated=simulated)
                Spending.objects.create(**key, **amounts)


def keep_writers_out() -> None:
    """Until the end of this transaction nobody else writes a step; what others began is waited for.

    It comes before any other lock of the transaction. SQLite has one writer anyway.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE runs_step IN EXCLUSIVE MODE")


def keep_ledgers_closed() -> None:
    """Until the end of this transaction nobody opens a ledger, or waits with one for a step of this run.

    For a transaction that looks at budgets before it writes its first step: else a ledger could be opened
    from the rows in between, without what is written then. SQLite has one writer anyway.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE runs_step IN ROW EXCLUSIVE MODE")


def _any_budget(current: Change) -> bool:
    """Without Django's query builder: every model call and every tool call asks this twice.

    SQLite has one writer, so that the answer holds for the whole change.
    """
    if current.has_budgets is None or connection.vendor != "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM runs_budget LIMIT 1")
            current.has_budgets = cursor.fetchone() is not None
    _Seen.any = current.has_budgets
    return current.has_budgets


def _locked(current: Change, moment: datetime) -> list[Spending]:
    """The open ledgers of this run's budgets in the periods of this moment, locked in a fixed order."""
    run = current.run
    found = list(
        Spending.objects.select_for_update(of=("self",))
        .select_related("budget")
        .filter(
            budget__in=Budget.objects.filter(applying(run.agent)),
            simulated=run.simulated,
            starts_on__in={period_start(period, moment) for period in ("day", "month")},
        )
        .order_by("budget_id", "starts_on")
    )
    return [ledger for ledger in found if ledger.starts_on == period_start(ledger.budget.period, moment)]


def _ledgers_of(current: Change, step: Step) -> list[Spending]:
    return [ledger for ledger in _locked(current, current.now) if ledger.budget.tool in {"", step.name}]


def _must_fit(budget: Budget, needed: Decimal | int, limit: Decimal | int) -> None:
    if needed > limit:
        raise BudgetUsedUp(f"The next call does not fit into the budget {budget.title}.")
