"""What a run may still spend: the worst case of a call is known before it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from runs.agents import Limits
from runs.money import MILLION, UnitPrices

SMALLEST_ANSWER = 1_024  # tokens a turn needs to be of any use
SMALLEST_SUMMARY = 512
RESULTS_ALLOWANCE = 8_000  # tokens of tool results that may come before the summary


@dataclass(frozen=True)
class Spent:
    """What the run has used; an attempt that broke off counts with its whole reservation."""

    steps: int = 0
    tool_calls: int = 0
    tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    active_seconds: float = 0.0
    repeats: int = 0  # turns in a row that only repeated


@dataclass(frozen=True)
class Reservation:
    """A call that fits: its output limit and its worst case in tokens and in USD (None: unpriced)."""

    max_tokens: int
    worst_tokens: int
    worst_usd: Decimal | None


@dataclass(frozen=True)
class Exceeded:
    """Which limit does not allow another call, and a sentence that says so."""

    limit: str
    sentence: str


def counted(limits: Limits, spent: Spent) -> Exceeded | None:
    """The limit on steps, calls or time that is reached, if any."""
    if spent.steps >= limits.steps:
        return Exceeded("steps", f"The limit of {limits.steps} steps is reached.")
    if spent.tool_calls >= limits.tool_calls:
        return Exceeded("tool_calls", f"The limit of {limits.tool_calls} tool calls is reached.")
    if spent.active_seconds >= limits.seconds:
        return Exceeded("seconds", f"The limit of {limits.seconds} seconds is reached.")
    if spent.repeats >= limits.repeats:
        sentence = f"The last {spent.repeats} turns only repeated calls that had been answered already."
        return Exceeded("repeats", sentence)
    return None


def reserve(
    limits: Limits,
    spent: Spent,
    *,
    prompt_tokens: int,
    wanted: int,
    prices: UnitPrices | None,
    final: bool,
) -> Reservation | Exceeded:
    """Fit the next call into the budgets, or say which one is too small.

    Unless it is the final one, a call leaves enough for a last summary after it. `wanted` is the
    agent's own output limit; the result is at most that.
    """
    smallest = SMALLEST_SUMMARY if final else SMALLEST_ANSWER
    by_tokens = _output_by_tokens(limits.tokens - spent.tokens, prompt_tokens, final)
    if by_tokens < smallest:
        return Exceeded("tokens", f"The next call does not fit into the limit of {limits.tokens:,} tokens.")
    if prices is None:
        output = min(wanted, by_tokens)
        return Reservation(output, prompt_tokens + output, None)
    by_money = _output_by_money(limits.cost_usd - spent.cost_usd, prompt_tokens, prices, final)
    if by_money < smallest:
        return Exceeded("cost_usd", f"The next call does not fit into the budget of ${limits.cost_usd}.")
    output = min(wanted, by_tokens, by_money)
    worst = (prompt_tokens * prices.dearest_input + output * prices.output) / MILLION
    return Reservation(output, prompt_tokens + output, worst)


def _output_by_tokens(left: int, prompt: int, final: bool) -> int:
    if final:
        return left - prompt
    # The call itself and a summary after it, whose prompt holds this call's prompt and output again.
    return (left - 2 * prompt - RESULTS_ALLOWANCE - SMALLEST_SUMMARY) // 2


def _output_by_money(left: Decimal, prompt: int, prices: UnitPrices, final: bool) -> int:
    left_millionths = left * MILLION - prompt * prices.dearest_input
    if final:
        return int(left_millionths / prices.output) if prices.output else 10**9
    summary = (prompt + RESULTS_ALLOWANCE) * prices.dearest_input + SMALLEST_SUMMARY * prices.output
    both = prices.output + prices.dearest_input
    return int((left_millionths - summary) / both) if both else 10**9
