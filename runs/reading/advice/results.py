"""Advice on what tools answer and on retries: tokens that a conversation carries from call to call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from runs.money import MILLION, UnitPrices
from runs.reading.advice.attempts import FEWEST_RUNS, Attempt, Looked
from runs.reading.advice.suggestions import Advice, missing, most, percent, usd

MOST_TOOLS = 5
MUCH = Decimal("0.25")  # of the cost of the prompts: a tool's results that take more are worth a look
FREQUENT = Decimal("0.05")  # of the cost of all attempts
ZERO = Decimal(0)


@dataclass
class Carried:
    """Results of one tool, or of several that were called together."""

    turns: int = 0
    tokens: int = 0
    first: Decimal = ZERO  # when they were sent for the first time
    later_tokens: int = 0  # sent again, with each call after it
    later: Decimal = ZERO
    by_run: dict[int, Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))

    @property
    def cost(self) -> Decimal:
        return self.first + self.later


def result_advice(looked: Looked) -> Iterator[Advice]:
    """On tool results and on failed attempts."""
    yield _results(looked)
    yield _retries(looked)


def carried_by_tool(looked: Looked) -> dict[str, Carried]:
    """What each tool's results added to the prompts, and what that cost then and in all calls after it.

    New in a prompt are the tokens beyond the prompt and the answer before it.
    """
    tools: dict[str, Carried] = defaultdict(Carried)
    for run, attempts in looked.attempts.items():
        good = [attempt for attempt in attempts if not attempt.failed and attempt.prices is not None]
        for place in range(1, len(good)):
            before, attempt = good[place - 1], good[place]
            held = before.usage.prompt_tokens + before.usage.output_tokens
            new = attempt.usage.prompt_tokens - held
            if not attempt.caused_by or new <= 0:
                continue
            one = tools[attempt.caused_by]
            first = new * _new_price(attempt) / MILLION
            prices = [_again_price(later) for later in good[place + 1 :]]
            later = new * sum(prices, ZERO) / MILLION
            one.turns, one.tokens, one.first = one.turns + 1, one.tokens + new, one.first + first
            one.later_tokens, one.later = one.later_tokens + new * len(prices), one.later + later
            one.by_run[run] += first + later
    return tools


def _results(looked: Looked) -> Advice:
    title = "Tool results that are carried along"
    if len(looked.runs) < FEWEST_RUNS:
        return missing(title, len(looked.runs), "ended runs")
    tools = carried_by_tool(looked)
    if not tools:
        return Advice("missing", title, "No call was the first to hold the result of a tool.")
    ordered = sorted(tools.items(), key=lambda item: (-item[1].cost, item[0]))[:MOST_TOOLS]
    prompts = sum((_prompt_cost(attempt) for attempt in looked.all), ZERO)
    sums = [
        f"{name.replace(',', ' with ')}: {one.tokens:,} tokens in {one.turns} turns, {usd(one.first)} when "
        f"they were new, {one.later_tokens:,} sent again for {usd(one.later)}; together {usd(one.cost)}"
        for name, one in ordered
    ]
    name, dearest = ordered[0]
    sums.append(f"all prompts together cost {usd(prompts)}")
    runs = most(looked, dict(dearest.by_run))
    if prompts and dearest.cost > prompts * MUCH:
        says = (
            f"Results of {name.replace(',', ' with ')} take {percent(dearest.cost, prompts)} of what all "
            "prompts cost. Shorter results, or narrower questions, save their share in every later call."
        )
        return Advice("do", title, says, tuple(sums), runs)
    return Advice("fine", title, "No tool's results stand out.", tuple(sums), runs)


def _retries(looked: Looked) -> Advice:
    title = "Failed attempts and retries"
    if len(looked.runs) < FEWEST_RUNS:
        return missing(title, len(looked.runs), "ended runs")
    total, lost, failed, unpriced = ZERO, ZERO, 0, 0
    by_run: dict[int, Decimal] = defaultdict(lambda: ZERO)
    count = 0
    for attempt in looked.all:
        count += 1
        total += attempt.cost or ZERO
        if attempt.failed:
            failed += 1
            unpriced += attempt.cost is None
            lost += attempt.cost or ZERO
            by_run[attempt.run] += attempt.cost or ZERO
    if not failed:
        return Advice("fine", title, f"None of {count:,} attempts failed.")
    sums = [
        f"{failed:,} of {count:,} attempts failed ({percent(failed, count)})",
        f"they cost {usd(lost)} of {usd(total)}" + (f" ({percent(lost, total)})" if total else ""),
    ]
    if unpriced:
        sums.append(f"{unpriced:,} of them have no price and are not in it")
    if total and lost > total * FREQUENT:
        says = "Attempts that brought no answer take a good part of the money: see on the page of errors why."
        return Advice("do", title, says, tuple(sums), most(looked, dict(by_run)))
    return Advice("fine", title, "They cost little.", tuple(sums), most(looked, dict(by_run)))


def _units(attempt: Attempt) -> UnitPrices:
    assert attempt.prices is not None
    return attempt.prices


def _new_price(attempt: Attempt) -> Decimal:
    """What a token that is new in this prompt cost."""
    usage, units = attempt.usage, _units(attempt)
    if usage.cache_write_5m_tokens:
        return units.cache_write_5m
    return units.cache_write_1h if usage.cache_write_1h_tokens else units.input


def _again_price(attempt: Attempt) -> Decimal:
    """What a token that stood in the prompt before this one cost."""
    return _units(attempt).cache_read if attempt.usage.cache_read_tokens else _units(attempt).input


def _prompt_cost(attempt: Attempt) -> Decimal:
    if attempt.cost is None or attempt.prices is None:
        return ZERO
    searches = attempt.usage.web_searches * attempt.prices.web_search / 1000
    return attempt.cost - attempt.usage.output_tokens * attempt.prices.output / MILLION - searches
