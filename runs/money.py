"""Tokens to exact USD. Pure: the same usage, model and time give the same Decimal for ever.

Prices are those that people have set, then those of the genai-prices package, pinned and offline. What
neither knows is unpriced, which is None and never zero.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from itertools import combinations
from typing import Any

from genai_prices import calc_price, types

from runs.model_names import find_listed, listed_name, version_of, without_date
from runs.usage import Usage, context_from_api, is_uncertain, parts_from_api, usage_from_api

__all__ = [
    "FRACTION",
    "MILLION",
    "PRICED",
    "SMALLEST",
    "SOURCE",
    "Override",
    "UnitPrices",
    "Usage",
    "context_from_api",
    "context_window",
    "fractions",
    "is_uncertain",
    "parts_from_api",
    "unit_prices",
    "usage_from_api",
]

MILLION = Decimal(1_000_000)
FRACTION = 10**10  # amounts are kept to the ten-thousand-millionth of a dollar, and added as whole ones
SMALLEST = Decimal(1) / FRACTION
SOURCE = f"genai-prices {version('genai-prices')}"
SEARCHES = Decimal(10)  # USD per thousand web searches, where the list does not say otherwise
US_FACTOR = Decimal("1.1")  # on every class of tokens, of models from 4.6 on
FIRST_IN_US = (4, 6)
PRICED = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output")
# Words that select another price of the list.
SELECTING = {"batch": ("processing", "batch"), "fast": ("speed", "fast")}
# What may be left out where no price names it, and how a source says so.
DERIVED = {"us": "US inference", "priority": "priority tier", "tools": "server tools"}
# What of a context an override need not name, from nothing to all of it: the closest one counts.
LEFT_OUT = [frozenset(c) for n in range(len(DERIVED) + 1) for c in combinations(reversed(DERIVED), n)]


@dataclass(frozen=True)
class UnitPrices:
    """USD per million tokens of each class, in the tier and speed of one call; web searches per thousand."""

    input: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    cache_read: Decimal
    output: Decimal
    web_search: Decimal
    source: str

    def cost(self, usage: Usage) -> Decimal:
        """Exact USD of this usage, to the last digit that is kept."""
        tokens = (
            usage.input_tokens * self.input
            + usage.cache_write_5m_tokens * self.cache_write_5m
            + usage.cache_write_1h_tokens * self.cache_write_1h
            + usage.cache_read_tokens * self.cache_read
            + usage.output_tokens * self.output
        )
        return _kept(tokens / MILLION + usage.web_searches * self.web_search / 1000)

    @property
    def dearest_input(self) -> Decimal:
        """The most that a token of the prompt can cost; for reservations."""
        return max(self.input, self.cache_write_5m, self.cache_write_1h, self.cache_read)

    def as_json(self) -> str:
        """The unit prices as they are stored with a call."""
        names = [field.name for field in fields(self) if field.name != "source"]
        return json.dumps({name: str(getattr(self, name)) for name in names})


@dataclass(frozen=True)
class Override:
    """Prices that people have set for one model in one context, from a moment on until before another."""

    model: str
    words: frozenset[str]  # of the context; empty: a standard call
    prices: UnitPrices
    since: datetime | None = None
    until: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Whether a call of this moment has these prices."""
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


def fractions(cost: Decimal) -> int:
    """USD as a whole number of the smallest amount that is kept."""
    return int(cost * FRACTION)


def unit_prices(
    model: str,
    *,
    at: datetime,
    prompt_tokens: int = 0,
    context: str = "",
    overrides: Sequence[Override] = (),
) -> UnitPrices | None:
    """Prices of this model at this time for a prompt of this size, or None when nobody knows them.

    `context` as `context_from_api` says it. An override for exactly this context comes first, then the
    overrides that differ in what can be derived, then the list. US inference is a factor on every class of
    tokens; what else no price names is said in the source. Batch and fast calls without a price of their own
    are unpriced: the standard price would be wrong by a factor of two.
    """
    words = frozenset(word for word in context.split(",") if word)
    for left_out in LEFT_OUT:
        if left_out <= words:
            found = _overridden(model, at, words - left_out, overrides)
            if found is not None:
                return _derived(found, model, left_out)
    left_out = words & DERIVED.keys()
    listed = _list_prices(model, at, prompt_tokens, words - left_out)
    return None if listed is None else _derived(listed, model, left_out)


def _overridden(
    model: str, at: datetime, words: AbstractSet[str], overrides: Sequence[Override]
) -> UnitPrices | None:
    for name in dict.fromkeys((model, without_date(model))):
        for override in overrides:
            if override.model == name and override.words == words and override.holds(at):
                return override.prices
    return None


def _derived(prices: UnitPrices, model: str, left_out: AbstractSet[str]) -> UnitPrices:
    """These prices for a call with more to its context than they were made for."""
    source = prices.source
    unknown = set(left_out)
    if "us" in left_out and _may_stay_in_us(model):
        unknown.remove("us")
        raised = {name: getattr(prices, name) * US_FACTOR for name in PRICED}
        prices, source = replace(prices, **raised), f"{source}, US {US_FACTOR}x"
    if unknown:
        source += f", approximate: {', '.join(DERIVED[word] for word in DERIVED if word in unknown)}"
    return replace(prices, source=source)


def _may_stay_in_us(model: str) -> bool:
    """Whether the model is of a version that can be kept in the US: those have the factor."""
    version = version_of(model)
    return version is not None and version[1:] >= FIRST_IN_US


def _list_prices(model: str, at: datetime, prompt_tokens: int, words: AbstractSet[str]) -> UnitPrices | None:
    minute = at.replace(second=0, microsecond=0)
    price = _listed(model, minute, **dict(SELECTING[word] for word in words))
    if price is None or len(words) > 1 or (words and price == _listed(model, minute)):
        return None  # asked for a price that it lacks, the list silently gives the standard one
    plain, output = _in_tier(price.get("input_mtok"), prompt_tokens), _in_tier(price.get("output_mtok"), 0)
    if plain is None or output is None:
        return None

    def unit(name: str, fallback: Decimal) -> Decimal:
        value = _in_tier(price.get(name), prompt_tokens)
        return fallback if value is None else value

    written = unit("cache_write_mtok", plain)
    return UnitPrices(
        input=plain,
        cache_write_5m=unit("cache_write_5m_mtok", written),
        cache_write_1h=unit("cache_write_1h_mtok", written),
        cache_read=unit("cache_read_mtok", plain),
        output=unit("output_mtok", output),
        web_search=unit("web_searches_kcount", SEARCHES),
        source=SOURCE,
    )


def _kept(cost: Decimal) -> Decimal:
    """Half of the smallest amount goes to the even side. Listed prices need it in the US only."""
    return cost.quantize(SMALLEST)


@lru_cache(maxsize=1024)
def _listed(model: str, at: datetime, **context: str) -> dict[str, Any] | None:
    """What the price table says of this model; searching it takes longer than all else here."""
    name = listed_name(model)
    if name is None:
        return None
    found = calc_price(
        types.Usage(input_tokens=0, output_tokens=0),
        name,
        provider_id="anthropic",
        genai_request_timestamp=at,
        price_context=context,
    )
    return vars(found.model_price)


@lru_cache(maxsize=256)
def context_window(model: str) -> int | None:
    """How many tokens this model can read, or None when the price table does not know it."""
    name = listed_name(model)
    found = None if name is None else find_listed(name)
    return None if found is None else found.context_window


def _in_tier(value: Decimal | types.TieredPrices | None, prompt_tokens: int) -> Decimal | None:
    """The rate for a prompt of this size: a tier that is crossed counts for all tokens of the call."""
    if isinstance(value, types.TieredPrices):
        crossed = [tier.price for tier in value.tiers if prompt_tokens > tier.start]
        return crossed[-1] if crossed else value.base
    return value
