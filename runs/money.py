"""Tokens to exact USD. Pure: the same usage, model and time give the same Decimal for ever.

Prices come from the genai-prices package, pinned and offline. A model it does not know is
unpriced, which is None and never zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from genai_prices import calc_price, types
from genai_prices.data_snapshot import get_snapshot

MILLION = Decimal(1_000_000)
FRACTION = 10**10  # amounts are kept to the ten-thousand-millionth of a dollar, and added as whole ones
SMALLEST = Decimal(1) / FRACTION
SOURCE = f"genai-prices {version('genai-prices')}"


@dataclass(frozen=True)
class Usage:
    """Tokens of one model call by class. The classes do not overlap; thinking is part of output."""

    input_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Everything sent: the price tier depends on it."""
        return (
            self.input_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
            + self.cache_read_tokens
        )

    @property
    def total_tokens(self) -> int:
        """All tokens, sent and received."""
        return self.prompt_tokens + self.output_tokens


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


def fractions(cost: Decimal) -> int:
    """USD as a whole number of the smallest amount that is kept."""
    return int(cost * FRACTION)


def context_from_api(usage: Mapping[str, Any]) -> str:
    """What an API usage object says that selects a price besides the model: batch, fast, priority, us."""
    words = [str(usage.get(name) or "") for name in ("service_tier", "speed", "inference_geo")]
    return ",".join(word for word in words if word in {"batch", "priority", "fast", "us"})


def usage_from_api(usage: Mapping[str, Any]) -> Usage:
    """The classes of an API usage object. Where the 5m/1h split is missing, writes count as 5m."""
    written = int(usage.get("cache_creation_input_tokens") or 0)
    split = usage.get("cache_creation") or {}
    hour = int(split.get("ephemeral_1h_input_tokens") or 0)
    five = split.get("ephemeral_5m_input_tokens")
    return Usage(
        input_tokens=int(usage.get("input_tokens") or 0),
        cache_write_5m_tokens=max(written - hour, 0) if five is None else int(five),
        cache_write_1h_tokens=hour,
        cache_read_tokens=int(usage.get("cache_read_input_tokens") or 0),
        output_tokens=int(usage.get("output_tokens") or 0),
        thinking_tokens=int((usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0),
        web_searches=int((usage.get("server_tool_use") or {}).get("web_search_requests") or 0),
    )


def unit_prices(
    model: str, *, at: datetime, prompt_tokens: int = 0, raw_usage: Mapping[str, Any] | None = None
) -> UnitPrices | None:
    """Prices of this model at this time for a prompt of this size, or None when nobody knows them.

    `raw_usage` is the API's usage object: its service tier and speed select the price.
    """
    price = _listed(model, at.replace(second=0, microsecond=0), **_price_context(raw_usage or {}))
    if price is None:
        return None
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
        web_search=unit("web_searches_kcount", Decimal(10)),
        source=SOURCE + _not_modelled(raw_usage or {}),
    )


def _kept(cost: Decimal) -> Decimal:
    """Half of the smallest amount goes to the even side. Listed prices never need it: they fit."""
    return cost.quantize(SMALLEST)


@lru_cache(maxsize=1024)
def _listed(model: str, at: datetime, **context: str) -> dict[str, Any] | None:
    """What the price table says of this model; searching it takes longer than all else here."""
    try:
        found = calc_price(
            types.Usage(input_tokens=0, output_tokens=0),
            model,
            provider_id="anthropic",
            genai_request_timestamp=at,
            price_context=context,
        )
    except LookupError:
        return None
    return vars(found.model_price)


@lru_cache(maxsize=256)
def context_window(model: str) -> int | None:
    """How many tokens this model can read, or None when the price table does not know it."""
    try:
        _, found = get_snapshot().find_provider_model(model, None, "anthropic", None)
    except LookupError:
        return None
    return found.context_window


def _in_tier(value: Decimal | types.TieredPrices | None, prompt_tokens: int) -> Decimal | None:
    """The rate for a prompt of this size: a tier that is crossed counts for all tokens of the call."""
    if isinstance(value, types.TieredPrices):
        crossed = [tier.price for tier in value.tiers if prompt_tokens > tier.start]
        return crossed[-1] if crossed else value.base
    return value


def _price_context(raw_usage: Mapping[str, Any]) -> dict[str, str]:
    if raw_usage.get("service_tier") == "batch":
        return {"processing": "batch"}
    if raw_usage.get("speed") == "fast":
        return {"speed": "fast"}
    return {}


def _not_modelled(raw_usage: Mapping[str, Any]) -> str:
    """What the price table does not know about this call, said in its source."""
    missing = []
    if raw_usage.get("service_tier") == "priority":
        missing.append("priority tier")
    if raw_usage.get("inference_geo") == "us":
        missing.append("US inference")
    return f", approximate: {' and '.join(missing)} not priced" if missing else ""
