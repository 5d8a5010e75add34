"""Tokens become exact dollars, or visibly unpriced."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import extract_usage
from hypothesis import given
from hypothesis import strategies as st

from runs.money import Usage, context_from_api, context_window, unit_prices, usage_from_api

NOW = datetime(2026, 11, 22, tzinfo=UTC)
MODELS = ["claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-5-5", "claude-fable-5-2", "claude-opus-5"]
FAST = {"claude-opus-5-5", "claude-fable-5-2", "claude-opus-5"}


def test_it_prices_cache_reads_and_both_kinds_of_writes_to_the_last_digit() -> None:
    raw = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 350,
        "cache_read_input_tokens": 7917,
        "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 50},
        "output_tokens": 442,
    }
    prices = unit_prices("claude-sonnet-5-5", at=NOW, prompt_tokens=8270)
    assert prices is not None
    # 3 x 2 + 300 x 2.5 + 50 x 4 + 7917 x 0.1 + 442 x 10 = 6167.7 millionths
    assert prices.cost(usage_from_api(raw)) == Decimal("0.0061677")
    assert usage_from_api(raw).total_tokens == 8712


def test_it_counts_writes_without_a_split_as_five_minutes() -> None:
    usage = usage_from_api({"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 9})
    assert (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) == (9, 0)


def test_it_takes_the_long_prompt_price_for_the_whole_request() -> None:
    small = unit_prices("claude-haiku-5-5", at=NOW, prompt_tokens=100_000)
    large = unit_prices("claude-haiku-5-5", at=NOW, prompt_tokens=100_001)
    assert small is not None and large is not None
    assert (small.input, large.input) == (Decimal("0.1"), Decimal("0.5"))
    assert (small.output, large.output) == (Decimal("0.5"), Decimal("2.5"))


@pytest.mark.parametrize("model", ["claude-mythos-5-1", "some-other-model"])
def test_it_calls_an_unknown_model_unpriced_and_not_free(model: str) -> None:
    assert unit_prices(model, at=NOW) is None


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        ("claude-opus-4@20250514", "claude-opus-4-0"),
        ("claude-opus-4-20250514", "claude-opus-4-0"),
        ("claude-4-opus-20250514", "claude-opus-4-0"),
        ("claude-3-5-sonnet@20240620", "claude-3-5-sonnet"),
        ("claude-opus-5.5", "claude-opus-5-5"),
        ("claude-opus-5-5@20261101", "claude-opus-5-5"),
        ("claude-opus-5-5-2026-11-01", "claude-opus-5-5"),
        ("claude-opus-5-latest", "claude-opus-5"),
    ],
)
def test_a_dated_version_has_the_price_of_its_model(model: str, listed: str) -> None:
    found = unit_prices(model, at=NOW)
    assert found is not None and found == unit_prices(listed, at=NOW)
    assert context_window(model) == context_window(listed)


@pytest.mark.parametrize(
    "model",
    [
        *("claude-opus-5.5-fast", "claude-opus-5-5-preview", "claude-opus-4-80", "claude-opus-4-8-1"),
        *("claude-opus-4-05", "claude-opus-44", "claude-opus-5-5@20261301", "claude-opus-5-5-2026-1101"),
        *("claude-opus-4-8@beta", "claude-sonnet-4-2025", "claude-sonnet-4@", "claude-opus-5-5 ", ""),
        *("anthropic/claude-opus-5-5", "claude-3-5-sonnet-v2@20241022", "claude-opus-4-8@20261101\n"),
        *("my-claude-v2-tuned", "Claude-Opus-5-5", "claude-opus-4-8[1m]", "claude-haiku-5.51"),
    ],
)
def test_a_name_that_only_resembles_a_model_has_no_price(model: str) -> None:
    assert unit_prices(model, at=NOW) is None
    assert context_window(model) is None


@given(model=st.sampled_from(MODELS), more=st.text("-@.0123456789abfst", min_size=1, max_size=9))
def test_what_is_added_to_a_name_makes_it_another_model_unless_it_is_a_day(model: str, more: str) -> None:
    priced = unit_prices(model + more, at=NOW)
    is_day = more[0] in "-@" and len(more[1:].replace("-", "")) == 8
    assert (
        priced is None or is_day or model + more in {"claude-opus-5-5", "claude-opus-5.5", "claude-opus-5.0"}
    )


def test_it_says_what_its_price_leaves_out() -> None:
    prices = unit_prices("claude-sonnet-5-5", at=NOW, context="priority")
    assert prices is not None and prices.source.endswith("approximate: priority tier")


@given(
    model=st.sampled_from(MODELS),
    fast=st.booleans(),
    tokens=st.tuples(*[st.integers(0, 300_000)] * 5),
    searches=st.integers(0, 20),
)
def test_it_agrees_with_the_price_package_on_any_usage(
    model: str, fast: bool, tokens: tuple[int, ...], searches: int
) -> None:
    plain, five, hour, read, output = tokens
    raw = {
        "input_tokens": plain,
        "cache_creation_input_tokens": five + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "cache_read_input_tokens": read,
        "output_tokens": output,
        "server_tool_use": {"web_search_requests": searches},
        "speed": "fast" if fast else "standard",
    }
    usage = usage_from_api(raw)
    assert usage == Usage(plain, five, hour, read, output, 0, searches)
    prices = unit_prices(model, at=NOW, prompt_tokens=usage.prompt_tokens, context=context_from_api(raw))
    theirs = extract_usage({"model": model, "usage": raw}, provider_id="anthropic").calc_price(
        genai_request_timestamp=NOW, price_context={"speed": "fast"} if fast else {}
    )
    if fast and model not in FAST:
        assert prices is None  # the package silently takes the standard price
        return
    assert prices is not None
    assert prices.cost(usage) == theirs.total_price
