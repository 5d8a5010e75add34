"""People are told once when a budget reaches a threshold, and when it has no room for a call.

Everything is written in the transaction that holds the ledger, beside what crossed the threshold: so it is
neither lost nor told twice, whoever races for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from runs.models import (
    Budget,
    BudgetNotice,
    NoticeKind,
    NotificationChannel,
    NotificationDelivery,
    Run,
    Spending,
)
from runs.models.budget import period_bounds

FULL = 100  # percent; also reached when the next call of a run has no room
LIMITS = ("cost_usd", "tokens", "tool_calls")


def tell_thresholds(ledger: Spending, now: datetime, run: Run | None = None) -> None:
    """Inside the transaction that holds this ledger: each threshold it has reached by now is told once.

    When several are reached at once each is recorded, and the message is about the highest.
    """
    nearest = nearest_limit(ledger)
    if nearest is not None:
        _tell(ledger, reached(ledger.budget, *nearest[1:]), nearest, now, run)


def forget_thresholds(ledger: Spending) -> None:
    """Inside the transaction that has changed the limits: what the new ones do not reach is told again."""
    nearest = nearest_limit(ledger)
    still = max(reached(ledger.budget, *nearest[1:]), default=0) if nearest else 0
    if still < ledger.noticed:
        ledger.noticed = still
        ledger.save(update_fields=["noticed"])


def tell_full(ledger: Spending, now: datetime, run: Run) -> None:
    """Inside the transaction that holds this ledger: it has no room for the next call of this run.

    That counts as all of it, unless nobody wants to be told of this budget.
    """
    nearest = nearest_limit(ledger)
    if nearest is not None and ledger.budget.thresholds:
        _tell(ledger, [FULL], nearest, now, run, was_full=True)


def nearest_limit(ledger: Spending) -> tuple[str, Decimal, Decimal] | None:
    """The limit of which most is used: its name, what is used without calls under way, what may be."""
    return max(_limits(ledger), key=lambda one: one[1] / one[2] if one[2] else Decimal("inf"), default=None)


def reached(budget: Budget, used: Decimal, of: Decimal) -> list[int]:
    """The thresholds of the budget that so much has reached."""
    return [threshold for threshold in budget.thresholds if used * 100 >= of * threshold]


def _limits(ledger: Spending) -> Iterator[tuple[str, Decimal, Decimal]]:
    for name in LIMITS:
        limit = getattr(ledger.budget, name)
        if limit is not None:
            yield name, Decimal(getattr(ledger, name)), Decimal(limit)


def _tell(
    ledger: Spending,
    thresholds: list[int],
    nearest: tuple[str, Decimal, Decimal],
    now: datetime,
    run: Run | None,
    *,
    was_full: bool = False,
) -> None:
    new = [threshold for threshold in thresholds if threshold > ledger.noticed]
    if not new:
        return
    name, used, of = nearest
    ledger.noticed = max(new)
    ledger.save(update_fields=["noticed"])
    budget = ledger.budget
    BudgetNotice.objects.bulk_create(
        BudgetNotice(
            budget=budget,
            revision=budget.revision,
            starts_on=ledger.starts_on,
            simulated=ledger.simulated,
            threshold=threshold,
            limit=name,
            used=used,
            of=of,
            was_full=was_full,
            run=run,
            at=now,
        )
        for threshold in new
    )
    _write(ledger, {"threshold": max(new), "was_full": was_full}, nearest, now, run)


def _write(
    ledger: Spending,
    what: dict[str, Any],
    nearest: tuple[str, Decimal, Decimal],
    now: datetime,
    run: Run | None,
) -> None:
    """A message for each channel that wants it. One for some agents hears of their own budgets alone."""
    budget = ledger.budget
    wanting = [
        channel
        for channel in NotificationChannel.objects.filter(enabled=True)
        if NoticeKind.BUDGET in channel.notices and (not channel.agents or budget.agent in channel.agents)
    ]
    if not wanting:
        return
    facts = json.dumps(what | _facts(ledger, nearest, now, run), ensure_ascii=False)
    NotificationDelivery.objects.bulk_create(
        NotificationDelivery(
            channel=channel,
            channel_name=channel.name,
            run=run,
            notice=NoticeKind.BUDGET,
            facts=facts,
            next_at=now,
            created_at=now,
        )
        for channel in wanting
    )


def _facts(
    ledger: Spending, nearest: tuple[str, Decimal, Decimal], now: datetime, run: Run | None
) -> dict[str, Any]:
    budget = ledger.budget
    name, used, of = nearest
    return {
        "budget": budget.pk,
        "outcome": "reached",
        "headline": budget.title,
        "scope": budget.scope,
        "subject": budget.subject,
        "period": budget.period,
        "tool": budget.tool,
        "limited": name,
        "used": f"{used:f}",
        "limit": f"{of:f}",
        "at_limit": str(budget.at_limit),
        "ends_at": period_bounds(budget.period, ledger.starts_on)[1].isoformat(),
        "simulated": ledger.simulated,
        "crossed_by": run.pk if run is not None else None,
        "at": now.isoformat(),
    }
