"""What budgets that runs share still allow this run. Read from rows; the booking is what makes it hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from runs import actions
from runs.agents import Limits
from runs.engine.limits import Exceeded, Reservation, Spent, reserve
from runs.models import AtLimit, Budget, Run, Spending, Step, StepKind, StepStatus
from runs.models.budget import UNPRICED, applying, period_bounds, period_start
from runs.money import UnitPrices

IN_FLIGHT_SECONDS = 2  # how long a run waits for calls of others to release what they reserved


@dataclass(frozen=True)
class Room:
    """What is left of one budget; None: not limited. `reserved` is what calls under way may still use."""

    budget: int
    revision: int
    title: str
    reason: str
    until: datetime
    pauses: bool
    tool: str = ""
    tokens: int | None = None
    cost_usd: Decimal | None = None
    tool_calls: int | None = None
    reserved_tokens: int = 0
    reserved_usd: Decimal = Decimal(0)


@dataclass(frozen=True)
class UsedUp(Exceeded):
    """A budget has no room. `in_flight`: it would have, were it not for calls that are under way."""

    room: Room
    in_flight: bool = False
    unpriced: bool = False

    @property
    def until(self) -> datetime | None:
        """When there is room again; None when no new period helps."""
        return None if self.unpriced else self.room.until

    @property
    def explanation(self) -> str:
        """Why the run does not go on now, and what would help."""
        if self.unpriced:
            return self.sentence
        if self.in_flight:
            return f"{self.sentence} Calls of other runs hold the rest of it. Trying again by itself."
        return (
            f"{self.sentence} It goes on by itself when the budget is raised or removed, or when its next "
            f"period begins, {self.room.until:%Y-%m-%d %H:%M} UTC. Nothing is lost meanwhile."
        )


@dataclass(frozen=True)
class Shared:
    """What is left of every budget of this run, and how many calls of each tool wait to start."""

    rooms: tuple[Room, ...] = ()
    ready: tuple[tuple[str, int], ...] = ()


NOTHING = Shared()


def shared(run: Run, steps: Iterable[Step], now: datetime) -> Shared:
    """From the rows of now. Raises LedgerMissing when a period has just begun: open it and ask again."""
    if not actions.may_have_budgets():
        return NOTHING
    budgets = list(Budget.objects.filter(applying(run)).select_related("user"))
    if not budgets:
        return NOTHING
    ledgers = _ledgers(run, budgets, now)
    if len(ledgers) < len(budgets):
        raise actions.LedgerMissing("The ledger of a budget is not open yet.")
    ready: dict[str, int] = {}
    for step in steps:
        if step.kind == StepKind.TOOL and step.status == StepStatus.READY and step.counted_at is None:
            ready[step.name] = ready.get(step.name, 0) + 1
    rooms = tuple(_room(budget, ledgers[budget.pk]) for budget in budgets if not budget.is_soft)
    return Shared(rooms, tuple(ready.items()))


def fit(
    rooms: Iterable[Room],
    limits: Limits,
    spent: Spent,
    *,
    prompt_tokens: int,
    wanted: int,
    prices: UnitPrices | None,
    final: bool,
) -> Reservation | Exceeded:
    """Fit the next call into the run's own limits and into what every shared budget has left."""
    fits = reserve(limits, spent, prompt_tokens=prompt_tokens, wanted=wanted, prices=prices, final=final)
    for room in rooms:
        if isinstance(fits, Exceeded):
            return fits
        if room.cost_usd is not None and prices is None:
            return _unpriced(room)
        wanted = fits.max_tokens
        fits = reserve(
            _within(room, limits, spent),
            spent,
            prompt_tokens=prompt_tokens,
            wanted=wanted,
            prices=prices,
            final=final,
        )
        if isinstance(fits, Exceeded):
            alone = reserve(
                _within(_without_others(room), limits, spent),
                spent,
                prompt_tokens=prompt_tokens,
                wanted=wanted,
                prices=prices,
                final=final,
            )
            in_flight = not isinstance(alone, Exceeded)
            sentence = f"The next call does not fit into the budget {room.title}."
            return UsedUp(room.reason, sentence, room, in_flight=in_flight)
    return fits


def calls_used_up(rooms: Iterable[Room]) -> UsedUp | None:
    """The budget on all tool calls that is used up, if any: asking the model for more would be in vain."""
    for room in rooms:
        if not room.tool and room.tool_calls is not None and room.tool_calls <= 0:
            return UsedUp(room.reason, f"All tool calls of the budget {room.title} are made.", room)
    return None


def calls_that_wait(known: Shared) -> UsedUp | None:
    """The budget that asks to pause before these calls start, because it does not allow all of them."""
    for room in known.rooms:
        calls = sum(number for tool, number in known.ready if room.tool in {"", tool})
        if room.pauses and room.tool_calls is not None and calls > max(0, room.tool_calls):
            what = f"calls of {room.tool}" if room.tool else "tool calls"
            left = max(0, room.tool_calls)
            sentence = (
                f"The next {calls} {what} do not fit into the budget {room.title}, which has {left} left."
            )
            return UsedUp(room.reason, sentence, room)
    return None


def _ledgers(run: Run, budgets: list[Budget], now: datetime) -> dict[int, Spending]:
    """The open ledger of each budget in the period of now."""
    found = Spending.objects.filter(
        budget__in=budgets,
        simulated=run.simulated,
        starts_on__in={period_start(budget.period, now) for budget in budgets},
    )
    starts = {budget.pk: period_start(budget.period, now) for budget in budgets}
    return {row.budget_id: row for row in found if row.starts_on == starts[row.budget_id]}


def _room(budget: Budget, ledger: Spending) -> Room:
    def left(limit: Decimal | int | None, *used: Decimal | int) -> Decimal | int | None:
        return None if limit is None else limit - sum(used)

    tokens = left(budget.tokens, ledger.tokens, ledger.reserved_tokens)
    cost = left(budget.cost_usd, ledger.cost_usd, ledger.reserved_usd)
    calls = left(budget.tool_calls, ledger.tool_calls)
    return Room(
        budget=budget.pk,
        revision=budget.revision,
        title=budget.title,
        reason=budget.reason,
        until=period_bounds(budget.period, ledger.starts_on)[1],
        pauses=budget.at_limit == AtLimit.PAUSE,
        tool=budget.tool,
        tokens=None if tokens is None else int(tokens),
        cost_usd=None if cost is None else Decimal(cost),
        tool_calls=None if calls is None else int(calls),
        reserved_tokens=ledger.reserved_tokens,
        reserved_usd=ledger.reserved_usd,
    )


def _within(room: Room, limits: Limits, spent: Spent) -> Limits:
    """Limits of a run that has used so much and may use no more than this room."""
    tokens = limits.tokens if room.tokens is None else room.tokens + spent.tokens
    cost = limits.cost_usd if room.cost_usd is None else room.cost_usd + spent.cost_usd
    return replace(limits, tokens=tokens, cost_usd=cost)


def _without_others(room: Room) -> Room:
    return replace(
        room,
        tokens=None if room.tokens is None else room.tokens + room.reserved_tokens,
        cost_usd=None if room.cost_usd is None else room.cost_usd + room.reserved_usd,
    )


def _unpriced(room: Room) -> UsedUp:
    sentence = (
        f"The price of this model is not known, and the budget {room.title} is in USD: an unknown cost "
        "cannot be held to it. Upgrade genai-prices to a version that knows the model and resume, or take "
        "the USD limit out of the budget (tokens can be limited instead) and it goes on by itself."
    )
    return UsedUp(room.reason + UNPRICED, sentence, replace(room, pauses=True), unpriced=True)
