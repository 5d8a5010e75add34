"""Costs are exact to the last digit: known traps one by one, and any usage against a formula of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from django.contrib.auth.models import User
from genai_prices import data
from genai_prices.types import ModelInfo, TieredPrices

from runs import actions
from runs.actions.prices import set_price
from runs.models import Charge
from runs.money import FRACTION, Override, UnitPrices, Usage, unit_prices
from runs.reading.invariants import contradictions
from tests.factories import a_run
from tests.test_engine import drive_to_the_end

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TRAP = {
    "input_tokens": 3,
    "cache_read_input_tokens": 7917,
    "cache_creation_input_tokens": 350,
    "output_tokens": 442,
}


def cost_of(charge: actions.Charge) -> Decimal | None:
    """What it is booked with; None when a part of it has no price."""
    costs = [None if part.prices is None else part.prices.cost(part.usage) for part in charge.parts]
    return None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))


# ------------------------------------------------------------ known traps

# What it is about, model, time, the API's usage, USD.
GOLDEN: list[tuple[str, str, datetime, dict[str, Any], str | None]] = [
    # 3 x 3 + 350 x 3.75 + 7917 x 0.3 + 442 x 15 millionths; 8712 tokens, none of them twice
    ("cache apart from input", "claude-sonnet-4-5", NOW, TRAP, "0.0103266"),
    # 3 x 2 + 350 x 2.5 + 7917 x 0.1 + 442 x 10: reads cost a twentieth here, not a tenth
    ("the multiplier of reads", "claude-sonnet-5-5", NOW, TRAP, "0.0060927"),
    (
        "writes for 5 minutes and for 1 hour",  # 300 x 5 + 50 x 8
        "claude-opus-5-5",
        NOW,
        {
            "cache_creation_input_tokens": 350,
            "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 50},
        },
        "0.0019",
    ),
    (
        "writes without a split",
        "claude-opus-5-5",
        NOW,
        {"cache_creation_input_tokens": 350, "cache_creation": None},
        "0.00175",
    ),
    (
        "up to the long prompt",
        "claude-haiku-5-5",
        NOW,
        {"input_tokens": 100_000, "output_tokens": 9},
        "0.0100045",
    ),
    ("a long prompt", "claude-haiku-5-5", NOW, {"input_tokens": 100_001, "output_tokens": 9}, "0.050023"),
    (
        "a long prompt out of the cache",  # 1 x 0.5 + 100 000 x 0.05 + 9 x 2.5
        "claude-haiku-5-5",
        NOW,
        {"input_tokens": 1, "cache_read_input_tokens": 100_000, "output_tokens": 9},
        "0.005023",
    ),
    ("batch", "claude-sonnet-5-5", NOW, TRAP | {"service_tier": "batch"}, "0.00304635"),
    (
        "the smallest amount",
        "claude-haiku-5-5",
        NOW,
        {"cache_read_input_tokens": 1, "service_tier": "batch"},
        "0.000000005",
    ),
    (
        "batch before it was listed",
        "claude-sonnet-5-5",
        NOW - timedelta(days=60),
        {"service_tier": "batch"},
        None,
    ),
    ("fast", "claude-opus-5-5", NOW, {"input_tokens": 10, "output_tokens": 3, "speed": "fast"}, "0.0002"),
    ("fast without a fast price", "claude-sonnet-5-5", NOW, TRAP | {"speed": "fast"}, None),
    ("unpriced", "claude-mythos-5-1", NOW, TRAP, None),
    ("priority tier", "claude-sonnet-5-5", NOW, TRAP | {"service_tier": "priority"}, "0.0060927"),
    # 3 x 2.2 + 350 x 2.75 + 7917 x 0.11 + 442 x 11
    ("US inference", "claude-sonnet-5-5", NOW, TRAP | {"inference_geo": "us"}, "0.00670197"),
    (
        "US inference does not make searches dearer",
        "claude-sonnet-5-5",
        NOW,
        {"input_tokens": 1, "inference_geo": "us", "server_tool_use": {"web_search_requests": 3}},
        "0.0300022",
    ),
    (
        "US inference in a batch",
        "claude-sonnet-5-5",
        NOW,
        TRAP | {"inference_geo": "us", "service_tier": "batch"},
        "0.003350985",
    ),
    (
        "a model that cannot be kept in the US",
        "claude-sonnet-4-5",
        NOW,
        TRAP | {"inference_geo": "us"},
        "0.0103266",
    ),
    (
        "the price of the day before",
        "claude-opus-4-6",
        datetime(2026, 3, 12, 23, 59, 59, tzinfo=UTC),
        {"input_tokens": 200_001},
        "2.00001",
    ),
    (
        "the price from that day on",
        "claude-opus-4-6",
        datetime(2026, 3, 13, tzinfo=UTC),
        {"input_tokens": 200_001},
        "1.000005",
    ),
    (
        "a compaction is not in the totals",  # 1000 x 2 + 100 x 10, and 5000 x 2 + 200 x 10
        "claude-sonnet-5-5",
        NOW,
        {
            "input_tokens": 1000,
            "output_tokens": 100,
            "iterations": [
                {"type": "compaction", "input_tokens": 5000, "output_tokens": 200},
                {"type": "message", "input_tokens": 1000, "output_tokens": 100},
            ],
        },
        "0.015",
    ),
    (
        "a fallback is billed as the model that it is",  # 1000 x 4, and 1000 x 2 + 100 x 10
        "claude-sonnet-5-5",
        NOW,
        {
            "input_tokens": 2000,
            "output_tokens": 100,
            "iterations": [
                {"type": "message", "model": "claude-opus-5-5", "input_tokens": 1000, "output_tokens": 0},
                {
                    "type": "fallback_message",
                    "model": "claude-sonnet-5-5",
                    "input_tokens": 1000,
                    "output_tokens": 100,
                },
            ],
        },
        "0.007",
    ),
    (
        "iterations have prompts of their own size",  # twice 60 000 are not one long prompt
        "claude-haiku-5-5",
        NOW,
        {
            "input_tokens": 120_000,
            "iterations": [{"type": "message", "input_tokens": 60_000, "output_tokens": 0}] * 2,
        },
        "0.012",
    ),
    (
        "what the iterations do not say is charged all the same",
        "claude-sonnet-5-5",
        NOW,
        {"input_tokens": 1500, "iterations": [{"type": "message", "input_tokens": 1000, "output_tokens": 0}]},
        "0.003",
    ),
]


@pytest.mark.parametrize(("about", "model", "at", "raw", "usd"), GOLDEN, ids=[line[0] for line in GOLDEN])
def test_a_known_trap(about: str, model: str, at: datetime, raw: Mapping[str, Any], usd: str | None) -> None:
    charge = actions.price(model, raw, at=at)
    assert cost_of(charge) == (None if usd is None else Decimal(usd))


def test_the_trap_of_8712_tokens_has_8712_tokens() -> None:
    usage = actions.price("claude-sonnet-5-5", TRAP, at=NOW).usage
    assert usage.total_tokens == 8712 and usage.prompt_tokens == 8270


@pytest.mark.parametrize(
    ("model", "raw", "end"),
    [
        ("claude-sonnet-5-5", {"inference_geo": "us"}, ", US 1.1x"),
        ("claude-haiku-4-5", {"inference_geo": "us"}, ", approximate: US inference"),
        ("claude-sonnet-5-5", {"service_tier": "priority"}, ", approximate: priority tier"),
        (
            "claude-sonnet-5-5",
            {"server_tool_use": {"web_fetch_requests": 2, "code_execution_requests": 1}},
            ", approximate: server tools",
        ),
        ("claude-sonnet-5-5", {"server_tool_use": {"web_fetch_requests": 2}}, " 0.2.3"),
        (
            "claude-sonnet-5-5",
            {"service_tier": "priority", "inference_geo": "us", "server_tool_use": {"x": 1}},
            ", US 1.1x, approximate: priority tier, server tools",
        ),
    ],
)
def test_the_source_says_what_the_list_does_not(model: str, raw: dict[str, Any], end: str) -> None:
    prices = actions.price(model, raw, at=NOW).prices
    assert prices is not None and prices.source.startswith("genai-prices ") and prices.source.endswith(end)


def test_an_override_for_the_context_beats_one_that_is_derived() -> None:
    def rule(context: str, output: str) -> Override:
        price = Decimal(output)
        return Override(
            "claude-sonnet-5-5",
            frozenset(context.split(",")) - {""},
            UnitPrices(price, price, price, price, price, Decimal(10), f"of {context or 'standard'}"),
        )

    standard, fast = rule("", "7"), rule("fast", "20")

    def output(context: str, *overrides: Override) -> tuple[str, str] | None:
        found = unit_prices("claude-sonnet-5-5", at=NOW, context=context, overrides=overrides)
        return None if found is None else (f"{found.output:f}", found.source)

    assert output("us", standard) == ("7.7", "of standard, US 1.1x")
    assert output("us", standard, rule("us", "9")) == ("9", "of us")
    assert output("priority,us", standard, rule("priority", "8")) == ("8.8", "of priority, US 1.1x")
    assert output("fast", standard) is None  # what is standard says nothing of fast calls
    assert output("priority,fast", standard, fast) == ("20", "of fast, approximate: priority tier")
    assert output("batch", standard) == ("5", "genai-prices 0.2.3")


def test_an_aborted_stream_is_charged_for_what_was_reported_and_received(
    faults: Callable[[str], None], operator: User
) -> None:
    faults("2: drop 20")
    run = drive_to_the_end(a_run(), operator)
    lost = Charge.objects.filter(failed=True).select_related("price").first()
    assert lost is not None and lost.estimated and lost.price is not None
    used = [lost.input_tokens, lost.cache_write_5m_tokens, lost.cache_write_1h_tokens, lost.cache_read_tokens]
    units = [lost.price.input, lost.price.cache_write_5m, lost.price.cache_write_1h, lost.price.cache_read]
    exact = sum(Fraction(n) * Fraction(u) for n, u in zip(used, units, strict=True))
    exact += Fraction(lost.output_tokens) * Fraction(lost.price.output)
    assert lost.amount == exact * FRACTION / 1_000_000 and lost.output_tokens > 1
    assert contradictions(run) == []


# ------------------------------------------------------------ any usage against a formula of its own

ANTHROPIC = next(provider for provider in data.providers if provider.id == "anthropic")
CLASSES = ("input", "write_5m", "write_1h", "read", "output")
DAYS = (date(2026, 10, 14) - date(2026, 1, 1)).days
FIRST_IN_US = {"claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-4-6"}
SINCE_5 = ("claude-fable-5", "claude-haiku-5", "claude-mythos-5", "claude-opus-5", "claude-sonnet-5")


def listed(
    model: ModelInfo, at: datetime, context: frozenset[str], prompt: int
) -> dict[str, Fraction] | None:
    """USD per million tokens, from the rows of the table as they stand."""
    rows = model.prices if isinstance(model.prices, list) else [None]
    prices: Any = model.prices
    for row in rows:
        if row is not None and (row.constraint is None or row.constraint.start_date <= at.date()):
            prices = row.prices
    values = dict(vars(prices))
    for word, when in (("batch", {"processing": "batch"}), ("fast", {"speed": "fast"})):
        if word in context:
            variants = [
                variant
                for variant in model.price_variants or []
                if variant.when == when
                and (variant.constraint is None or variant.constraint.start_date <= at.date())
            ]
            if not variants:
                return None
            values |= {name: value for name, value in vars(variants[0].prices).items() if value is not None}

    def usd(name: str, other: str) -> Fraction:
        value = values.get(name) or values.get(other) or values["input_mtok"]
        if isinstance(value, TieredPrices):
            value = max((tier.price for tier in value.tiers if prompt > tier.start), default=value.base)
        return Fraction(value)

    in_us = Fraction(11, 10) if "us" in context and _stays_in_us(model.id) else Fraction(1)
    return {
        "input": usd("input_mtok", "") * in_us,
        "write_5m": usd("cache_write_mtok", "") * in_us,
        "write_1h": usd("cache_write_1h_mtok", "cache_write_mtok") * in_us,
        "read": usd("cache_read_mtok", "") * in_us,
        "output": usd("output_mtok", "") * in_us,
    }


def _stays_in_us(name: str) -> bool:
    return name in FIRST_IN_US or name.startswith(SINCE_5)


def half_even(exact: Fraction) -> int:
    """The nearest whole number; of two, the even one."""
    return round(exact)


def random_usage(some: random.Random) -> dict[str, int]:
    sizes = (0, 1, 7, 999, 100_000, 100_001, 200_000, 200_001, 10**6)
    return {name: some.choice(sizes) if some.random() < 0.3 else some.randrange(60_000) for name in CLASSES}


def test_ten_thousand_random_usages_cost_what_the_table_says() -> None:
    some = random.Random(6)
    contexts = ["", "batch", "fast", "priority", "us", "batch,us", "fast,us", "priority,us"]
    wrong, priced, unpriced = [], set(), 0
    for _ in range(10_000):
        model, context = some.choice(ANTHROPIC.models), some.choice(contexts)
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(
            days=some.randrange(DAYS + 40), minutes=some.randrange(1440)
        )
        used, searches = random_usage(some), some.choice((0, 0, 1, 12))
        tier = next((word for word in ("batch", "priority") if word in context), "standard")
        charge = actions.price(
            model.id,
            {
                "input_tokens": used["input"],
                "cache_creation_input_tokens": used["write_5m"] + used["write_1h"],
                "cache_creation": {
                    "ephemeral_5m_input_tokens": used["write_5m"],
                    "ephemeral_1h_input_tokens": used["write_1h"],
                },
                "cache_read_input_tokens": used["read"],
                "output_tokens": used["output"],
                "server_tool_use": {"web_search_requests": searches},
                "service_tier": tier,
                "speed": "fast" if "fast" in context else "standard",
                "inference_geo": "us" if "us" in context else "global",
            },
            at=at,
        )
        prompt = sum(used.values()) - used["output"]
        prices = listed(model, at, frozenset(context.split(",")), prompt)
        cost = cost_of(charge)
        if prices is None:
            unpriced += 1
            expected = None
        else:
            priced.add(model.id)
            exact = sum(used[name] * prices[name] for name in CLASSES) / 10**6 + Fraction(searches, 100)
            expected = Decimal(half_even(exact * FRACTION)) / FRACTION
        if cost != expected:
            wrong.append((model.id, context, at, used, searches, cost, expected))
    assert wrong == []
    assert priced == {model.id for model in ANTHROPIC.models} and unpriced > 500


def test_what_people_set_is_exact_as_well() -> None:
    texts = {"input": "0.0001", "cache_write_5m": "3.7501", "cache_write_1h": "6.0003"}
    rest = {"cache_read": "0.0303", "output": "99.9999", "web_search": "12.5"}
    set_price(actor="dana", model="own-model", prices=texts | rest, reason="contract")
    charge = actions.price(
        "own-model",
        TRAP | {"cache_creation": {"ephemeral_1h_input_tokens": 350, "ephemeral_5m_input_tokens": 0}},
        at=NOW,
    )
    # 3 x 0.0001 + 350 x 6.0003 + 7917 x 0.0303 + 442 x 99.9999 = 46 539.9462 millionths
    assert cost_of(charge) == Decimal("0.0465399462")
    assert charge.usage == Usage(3, 0, 350, 7917, 442)
