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
from django.db.models import F, Max
from django.utils import timezone

from runs.actions.budget_notices import tell_thresholds
from runs.actions.change import Change, one_writer
from runs.actions.errors import BudgetUsedUp, LedgerMissing
from runs.models import Budget, BudgetNotice, Period, Spending, Step
from runs.models.amounts import amounts_of_steps, counted
from runs.models.budget import AMOUNTS, applying, period_bounds, period_start


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
    ledgers = locked(current, step.started_at)
    if len(ledgers) < Budget.objects.filter(applying(current.run)).count():
        raise LedgerMissing("The ledger of a budget is not open yet.")
    for ledger in (ledger for ledger in ledgers if not ledger.budget.tool):
        if not ledger.budget.is_soft:
            _must_fit(ledger, step)
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
    for ledger in locked(current, step.started_at):
        if ledger.budget.tool:
            continue
        ledger.reserved_tokens -= step.reserved_tokens
        ledger.reserved_usd -= step.reserved_usd or Decimal(0)
        ledger.tokens += tokens
        ledger.cost_usd += usd
        ledger.save(update_fields=["reserved_tokens", "reserved_usd", "tokens", "cost_usd"])
        tell_thresholds(ledger, current.now, current.run)


def reprice_attempts(current: Change, changes: Iterable[tuple[datetime, Decimal]]) -> None:
    """Inside the change that has saved new costs of attempts: add what changed, by the start of each, in USD.

    Each counts in the periods in which it started, also in past ones: a ledger is what its steps say.
    """
    if not _any_budget(current):
        return
    changes = list(changes)
    starts = {period_start(period, moment) for moment, _ in changes for period in Period.values}
    ledgers = (  # all of them at once: in the one order of locks
        Spending.objects.select_for_update(of=("self",))
        .select_related("budget")
        .filter(
            budget__in=Budget.objects.filter(applying(current.run)),
            simulated=current.run.simulated,
            starts_on__in=starts,
        )
        .order_by("budget_id", "starts_on")
    )
    for ledger in (ledger for ledger in ledgers if not ledger.budget.tool):
        period = ledger.budget.period
        added = sum(usd for moment, usd in changes if period_start(period, moment) == ledger.starts_on)
        if added:
            ledger.cost_usd += added
            ledger.save(update_fields=["cost_usd"])
            if ledger.starts_on == period_start(period, current.now):
                tell_thresholds(ledger, current.now, current.run)


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
        if budget.is_soft:
            continue
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
        tell_thresholds(ledger, current.now, current.run)


def follow_tag(current: Change, tag: str, *, joins: bool) -> list[Budget]:
    """Inside the change that puts a tag on this run or takes it off: what the run used moves with it.

    Into or out of every open ledger of the tag's budgets, so that each still says what its steps say. The
    budgets, of which those that got room by it have a new revision: whoever is about to pause looks again.
    """
    keep_ledgers_closed()
    if not _any_budget(current):
        return []
    run, sign = current.run, 1 if joins else -1
    moved: dict[int, Budget] = {}
    ledgers = Spending.objects.select_for_update(of=("self",)).select_related("budget")
    for ledger in ledgers.filter(budget__in=Budget.objects.filter(tag=tag), simulated=run.simulated).order_by(
        "budget_id", "starts_on"
    ):
        budget = ledger.budget
        amounts = amounts_of_steps(budget, ledger.starts_on, simulated=run.simulated, run_id=run.pk)
        if not any(amounts.values()):
            continue
        moved[budget.pk] = budget
        for name in AMOUNTS:
            setattr(ledger, name, getattr(ledger, name) + sign * amounts[name])
        ledger.save(update_fields=AMOUNTS)
        if joins and ledger.starts_on == period_start(budget.period, current.now):
            tell_thresholds(ledger, current.now, run)
    if not joins:
        Budget.objects.filter(pk__in=moved).update(revision=F("revision") + 1)
    return list(moved.values())


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
                told = BudgetNotice.objects.filter(**key, revision=budget.revision)
                noticed = told.aggregate(highest=Max("threshold"))["highest"] or 0
                Spending.objects.create(**key, **amounts, noticed=noticed)


def locked(current: Change, moment: datetime) -> list[Spending]:
    """The open ledgers of this run's budgets in the periods of this moment, locked in a fixed order."""
    run = current.run
    found = list(
        Spending.objects.select_for_update(of=("self",))
        .select_related("budget")
        .filter(
            budget__in=Budget.objects.filter(applying(run)),
            simulated=run.simulated,
            starts_on__in={period_start(period, moment) for period in Period.values},
        )
        .order_by("budget_id", "starts_on")
    )
    return [ledger for ledger in found if ledger.starts_on == period_start(ledger.budget.period, moment)]


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


def _ledgers_of(current: Change, step: Step) -> list[Spending]:
    return [ledger for ledger in locked(current, current.now) if ledger.budget.tool in {"", step.name}]


def _must_fit(ledger: Spending, step: Step) -> None:
    """Raises BudgetUsedUp when the worst case of this attempt is more than is left."""
    budget = ledger.budget
    needs: list[tuple[Decimal | int, Decimal | int]] = []
    if budget.tokens is not None:
        needs.append((ledger.tokens + ledger.reserved_tokens + step.reserved_tokens, budget.tokens))
    if budget.cost_usd is not None:
        if step.reserved_usd is None:
            raise BudgetUsedUp(f"The model has no price, and {budget.title} is in USD.")
        needs.append((ledger.cost_usd + ledger.reserved_usd + step.reserved_usd, budget.cost_usd))
    if any(needed > limit for needed, limit in needs):
        raise BudgetUsedUp(f"The next call does not fit into the budget {budget.title}.")
