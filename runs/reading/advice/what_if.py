"""What the same tokens would have cost on other models, at today's prices. Exact, class by class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import accumulate

from runs.claude.simulator.catalogue import MODELS
from runs.models import prices_in_force
from runs.models.charge import PRICED_CLASSES
from runs.money import MILLION, UnitPrices, Usage
from runs.reading.advice.attempts import Attempt, Looked
from runs.reading.statement import CLASS_NAMES

Prices = Callable[[str, str, int], UnitPrices | None]
COUNTS = (*(f"{name}_tokens" for name in PRICED_CLASSES), "web_searches")
ZERO = Decimal(0)


@dataclass(frozen=True)
class Line:
    """Tokens (or searches) of a class times its price."""

    name: str
    count: int
    unit: Decimal
    amount: Decimal


@dataclass(frozen=True)
class OnModel:
    """All compared attempts on one model: its lines add up to `cost`. `change`: against their own models."""

    model: str
    cost: Decimal
    lines: tuple[Line, ...]
    change: Decimal
    share: float | None
    is_own: bool


@dataclass(frozen=True)
class WhatIf:
    """The comparison: `own` is what the attempts cost on their own models at the same prices of today."""

    own: Decimal
    recorded: Decimal
    attempts: int
    models: tuple[OnModel, ...]  # the cheapest first
    unpriced_models: tuple[str, ...]
    left_out: int  # attempts whose own model has no price today
    left_out_tokens: int


def todays_prices(now: datetime) -> Prices:
    """Prices of a model for what selected one when the call was made, and for a prompt of this size.

    A model that has no fast mode would have answered at its usual price.
    """
    prices_in_force.look()

    def find(model: str, context: str, prompt_tokens: int) -> UnitPrices | None:
        usual = ",".join(word for word in context.split(",") if word != "fast")
        for tried in dict.fromkeys((context, usual)):
            prices = prices_in_force.unit_prices(model, at=now, prompt_tokens=prompt_tokens, context=tried)
            if prices is not None:
                return prices
        return None

    return find


def compare_models(looked: Looked, prices: Prices) -> WhatIf:
    """The attempts of these runs on every model that has a price, each call in the tier of its own prompt."""
    compared: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    left_out = [0, 0]
    for attempt in looked.all:
        if prices(attempt.model, attempt.context, attempt.usage.prompt_tokens) is None:
            left_out[0] += bool(attempt.usage.total_tokens)
            left_out[1] += attempt.usage.total_tokens
        else:
            compared[attempt.model, attempt.context].append(attempt)
    own = sum(
        (_cost(_lines(model, {context: found}, prices)) for (model, context), found in compared.items()), ZERO
    )
    by_context: dict[str, list[Attempt]] = defaultdict(list)
    for (_, context), found in compared.items():
        by_context[context] += found
    used = {model for model, _ in compared}
    found_models, unpriced = [], []
    for model in sorted({*MODELS, *used}):
        if prices(model, "", 0) is None:
            unpriced.append(model)
            continue
        lines = _lines(model, by_context, prices)
        cost = _cost(lines)
        share = float(cost / own) - 1 if own else None
        found_models.append(OnModel(model, cost, lines, cost - own, share, model in used))
    count = sum(len(found) for found in compared.values())
    recorded = sum((attempt.cost or ZERO for found in compared.values() for attempt in found), ZERO)
    found_models.sort(key=lambda one: (one.cost, one.model))
    return WhatIf(own, recorded, count, tuple(found_models), tuple(unpriced), *left_out)


def _lines(model: str, by_context: dict[str, list[Attempt]], prices: Prices) -> tuple[Line, ...]:
    """One line per class and price, in the order of classes."""
    counts: dict[tuple[int, Decimal], int] = defaultdict(int)
    for context, attempts in by_context.items():
        for units, sums in _tiers(model, context, attempts, prices):
            for place, (name, count) in enumerate(zip((*PRICED_CLASSES, "web_search"), sums, strict=True)):
                counts[place, getattr(units, name)] += count
    names = (*PRICED_CLASSES, "web_search")
    return tuple(
        Line(
            CLASS_NAMES[names[place]],
            count,
            unit,
            count * unit / (1000 if names[place] == "web_search" else MILLION),
        )
        for (place, unit), count in sorted(counts.items())
        if count
    )


def _tiers(
    model: str, context: str, attempts: list[Attempt], prices: Prices
) -> Iterator[tuple[UnitPrices, tuple[int, ...]]]:
    """Sums of usage by price. Prices only rise with the prompt: equal at both ends means equal in between."""
    ordered = sorted((attempt.usage for attempt in attempts), key=lambda usage: usage.prompt_tokens)
    nothing = (0,) * len(COUNTS)
    sums = list(accumulate(map(_counts, ordered), _plus, initial=nothing))
    waiting = [(0, len(ordered))] if ordered else []
    while waiting:
        first, after = waiting.pop()
        lowest = prices(model, context, ordered[first].prompt_tokens)
        if lowest == prices(model, context, ordered[after - 1].prompt_tokens):
            if lowest is not None:
                yield lowest, tuple(b - a for a, b in zip(sums[first], sums[after], strict=True))
            continue
        middle = (first + after) // 2
        waiting += [(first, middle), (middle, after)]


def _counts(usage: Usage) -> tuple[int, ...]:
    return tuple(getattr(usage, name) for name in COUNTS)


def _plus(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _cost(lines: tuple[Line, ...]) -> Decimal:
    return sum((line.amount for line in lines), ZERO)
