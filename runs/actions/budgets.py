"""Budgets that runs share: people set and remove them, and runs that one holds back go on when it allows.

Each change of a budget stands in a history that is only added to. The amounts are booked in `ledger`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from runs import agents
from runs.actions.amounts import WORDS, quoted, read_amount
from runs.actions.change import Lease, change, one_writer
from runs.actions.claims import set_paused
from runs.actions.controls import go_on
from runs.actions.errors import ActionError, UnknownBudget
from runs.actions.ledger import keep_ledgers_closed, keep_writers_out, open_for
from runs.hints import NO_RUN, announce
from runs.models import AtLimit, Budget, BudgetChange, Period, Run, RunStatus, Scope
from runs.models.budget import REASON, UNPRICED
from tools.registry import TOOLS

logger = logging.getLogger(__name__)

LIMITS = ("tokens", "cost_usd", "tool_calls")
LARGEST = {"tokens": 10**15, "cost_usd": 10**9, "tool_calls": 10**12}
SMALLEST_USD = Decimal("0.0001")


def set_budget(
    *,
    actor: str,
    scope: str,
    agent: str = "",
    period: str,
    tool: str = "",
    limits: Mapping[str, str],
    at_limit: str = AtLimit.WRAP_UP,
) -> Budget:
    """Set the budget of this scope, period and tool to these limits; a limit that is not named is none.

    It holds from now on and counts what was spent since its period began. Where it became wider, the runs
    that it had paused go on. `limits` are texts such as {"cost_usd": "50"}. Raises ActionError.
    """
    key = _checked_key(scope, agent, period, tool)
    values = _checked_limits(limits, tool=tool) | {"at_limit": _checked_at_limit(at_limit)}
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
        # budgets in the order of locks.
        keep_ledgers_closed()
        now = Budget.objects.select_for_update().filter(pk=budget_id).first()
        if now is None or now.revision != revision:
            return False
        set_paused(current, reason=reason, explanation=explanation, until=until)
    return True


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


def _checked_key(scope: str, agent: str, period: str, tool: str) -> dict[str, str]:
    if scope not in Scope.values:
        raise ActionError("A budget is for one agent or for the installation.")
    if period not in Period.values:
        raise ActionError("The period of a budget is a day or a month.")
    if (scope == Scope.AGENT) != bool(agent):
        raise ActionError("Name the agent of an agent's budget; one for the installation has none.")
    if agent and agent not in agents.installed() and not Run.objects.filter(agent=agent).exists():
        raise ActionError(f"There is no agent {quoted(agent)}. Installed: {', '.join(agents.installed())}.")
    if tool and tool not in TOOLS:
        raise ActionError(f"There is no tool {quoted(tool)}. Known: {', '.join(sorted(TOOLS))}.")
    return {"scope": scope, "agent": agent, "period": period, "tool": tool}


def _checked_at_limit(at_limit: str) -> str:
    if at_limit not in AtLimit.values:
        raise ActionError("Choose what happens at the limit: wrap up, or pause and ask.")
    return at_limit


def _checked_limits(limits: Mapping[str, str], *, tool: str) -> dict[str, Any]:
    """The limits as numbers, None where there is none."""
    for name in limits:
        if name not in LIMITS:
            raise ActionError(f"A budget limits {', '.join(WORDS.values())}, not {quoted(name)}.")
    values = {name: _number(name, limits.get(name, "").strip()) for name in LIMITS}
    if all(value is None for value in values.values()):
        raise ActionError("Give at least one limit: tokens, cost in USD or tool calls.")
    if tool and (
        values["tool_calls"] is None or values["tokens"] is not None or values["cost_usd"] is not None
    ):
        raise ActionError("The budget of one tool limits the number of its calls, and nothing else.")
    return values


def _number(name: str, text: str) -> Decimal | int | None:
    if not text:
        return None
    amount = read_amount(text.removeprefix("$") if name == "cost_usd" else text)
    step = SMALLEST_USD if name == "cost_usd" else Decimal(1)
    if amount is None or amount > LARGEST[name] or amount % step:
        kind = "an amount in USD such as 50 or 2.50" if name == "cost_usd" else "a whole number such as 5000"
        raise ActionError(f"{quoted(text)} cannot be a limit on {WORDS[name]}. Give {kind}.")
    return amount if name == "cost_usd" else int(amount)
