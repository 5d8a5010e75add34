"""What a usage object means: no token that was reported is lost, and what it leaves open is an estimate."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runs import actions
from runs.claude.usage import merge_usage
from runs.money import context_from_api, is_uncertain, parts_from_api, usage_from_api
from tests.test_odd_answers import answering, ask, turn

NOW = datetime(2026, 11, 22, tzinfo=UTC)
MODEL = "claude-sonnet-5-5"


def raw(total: Any, five: Any = None, hour: Any = None, **more: Any) -> dict[str, Any]:
    split = {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour}
    written = {"cache_creation_input_tokens": total, "cache_creation": split}
    return {"input_tokens": 1, "output_tokens": 1, **written, **more}


@pytest.mark.parametrize(
    ("usage", "five", "hour", "uncertain"),
    [
        (raw(300, 100, 200), 100, 200, False),
        (raw(20_300, 100, 200), 20_100, 200, True),  # the split has grown stale in a stream
        (raw(300, None, 200), 100, 200, False),
        (raw(300, 100), 300, 0, True),
        (raw(300, 0, 0), 300, 0, True),
        (raw(300), 300, 0, True),
        (raw(300, cache_creation=None), 300, 0, True),  # an hour or five minutes: nobody says
        (raw(None, 100, 200), 100, 200, True),
        (raw(0, 100, 200), 100, 200, True),
        (raw(250, 100, 200), 50, 200, True),  # the split has more than the total
        (raw(150, 100, 200), 0, 150, True),
        (raw(0, 0, 0), 0, 0, False),
        (raw(None, cache_creation=None), 0, 0, False),
        (raw(-5, 3, 0), 3, 0, True),
        (raw("300", 100, 200), 100, 200, True),
        (raw(300, 100.0, 200), 100, 200, True),
        (raw(300, cache_creation=[1]), 300, 0, True),
        (raw(True, 0, 0), 0, 0, True),
        (raw(10**18, 100, 200), 100, 200, True),
        (raw(0, 0, 0, output_tokens=None), 0, 0, True),
    ],
)
def test_the_total_of_cache_writes_counts_and_what_it_leaves_open_is_an_estimate(
    usage: dict[str, Any], five: int, hour: int, uncertain: bool
) -> None:
    counted = usage_from_api(usage)
    assert (counted.cache_write_5m_tokens, counted.cache_write_1h_tokens) == (five, hour)
    assert is_uncertain(usage) is uncertain


ANYTHING = st.recursive(
    st.sampled_from((None, True, -1, 0, 7, 300, 10**12, 1.5, float("nan"), "", "12")),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens",
             "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "web_search_requests", "model", "type")
        ), inner, max_size=4,
    ), max_leaves=5,
)  # fmt: skip
PARTS = ("cache_creation", "server_tool_use", "iterations", "output_tokens_details", "service_tier", "speed")


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(("input_tokens", "cache_creation_input_tokens", *PARTS)), ANYTHING),
    st.dictionaries(st.sampled_from(("output_tokens", "cache_read_input_tokens", *PARTS)), ANYTHING),
)
def test_whatever_is_reported_there_is_a_count(start: dict[str, Any], delta: dict[str, Any]) -> None:
    merged = merge_usage(merge_usage({}, start), delta)
    for usage in (start, merged):
        context_from_api(usage)
        is_uncertain(usage)
        for _, part in parts_from_api(MODEL, usage):
            assert all(0 <= value <= 10**10 for value in vars(part).values())


START = {"input_tokens": 50, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 0,
         "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
         "output_tokens": 1, "service_tier": "standard"}  # fmt: skip


@pytest.mark.parametrize(
    ("delta", "right", "uncertain"),
    [  # plain, writes for five minutes and an hour, reads, output
        ({"output_tokens": 9}, (50, 100, 200, 0, 9), False),
        ({"input_tokens": 90, "output_tokens": 9}, (90, 100, 200, 0, 9), False),
        ({"input_tokens": None, "output_tokens": 9}, (50, 100, 200, 0, 9), False),
        # zeros for all that somebody on the way does not know
        (
            {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
            (50, 100, 200, 0, 1),
            False,
        ),
        ({"input_tokens": 0, "output_tokens": 9}, (50, 100, 200, 0, 9), False),
        ({"input_tokens": 0, "cache_creation_input_tokens": 300}, (50, 100, 200, 0, 1), False),
        # the same prompt, found in the cache after all
        (
            {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 350},
            (0, 100, 200, 350, 1),
            True,
        ),
        ({"output_tokens": 0}, (50, 100, 200, 0, 1), False),
        (
            {"cache_creation_input_tokens": 900, "cache_creation": {"ephemeral_5m_input_tokens": 700}},
            (50, 700, 200, 0, 1),
            False,
        ),
        (
            {
                "cache_creation_input_tokens": 900,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 900},
            },
            (50, 0, 900, 0, 1),
            False,
        ),
        (
            {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}},
            (50, 100, 200, 0, 1),
            False,
        ),
    ],
)
def test_the_reports_of_a_stream_are_one(
    delta: dict[str, Any], right: tuple[int, ...], uncertain: bool
) -> None:
    merged = merge_usage(merge_usage({}, START), delta)
    used = usage_from_api(merged)
    assert tuple(vars(used).values())[:5] == right
    assert is_uncertain(merged) is uncertain


@pytest.mark.django_db
def test_a_stream_whose_split_has_grown_stale_is_paid_in_full() -> None:
    """Seen: $0.04433 booked for $0.09433, because the split of message_start was taken for the total."""
    delta = {
        "input_tokens": 90,
        "cache_creation_input_tokens": 20_300,
        "cache_read_input_tokens": 41_000,
        "output_tokens": 900,
        "server_tool_use": {"web_search_requests": 3},
    }
    with answering(b"text/event-stream", turn(start=START, usage=delta)) as client:
        used = ask(client).usage
    charge = actions.price(MODEL, used, at=NOW)
    assert charge.prices is not None and charge.estimated
    assert charge.prices.cost(charge.usage) == Decimal("0.09433")
    assert (
        not actions.price(MODEL, START, at=NOW).estimated and not actions.price(MODEL, {}, at=NOW).estimated
    )


def test_a_prompt_of_zero_at_the_end_of_a_stream_is_not_believed() -> None:
    zeros = dict.fromkeys(("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"), 0)
    with answering(b"text/event-stream", turn(start=START, usage=zeros)) as client:
        used = ask(client).usage
    assert (usage_from_api(used).prompt_tokens, used["output_tokens"]) == (350, 9)


def test_a_stream_says_what_selects_its_price_at_its_end() -> None:
    split = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 300}
    delta = {"speed": "fast", "inference_geo": "us", "cache_creation": split}
    with answering(b"text/event-stream", turn(start=START, usage=delta)) as client:
        used = ask(client).usage
    assert context_from_api(used) == "fast,us"
    counted = usage_from_api(used)
    assert (counted.cache_write_5m_tokens, counted.cache_write_1h_tokens) == (0, 300)


def test_iterations_are_paid_once_with_the_lifetimes_of_the_total() -> None:
    usage = {
        **raw(300, 100, 200, server_tool_use={"web_search_requests": 2}),
        "input_tokens": 30,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 5},
        "iterations": [
            {"type": "compaction", "input_tokens": 1_000, "output_tokens": 7},
            {
                "type": "message",
                "input_tokens": 10,
                "output_tokens": 8,
                "cache_creation_input_tokens": 250,
            },
            {
                "type": "fallback_message",
                "model": "claude-haiku-5-5",
                "input_tokens": 20,
                "cache_creation_input_tokens": 50,
                "output_tokens": 10,
                "server_tool_use": {"web_search_requests": 2},
                "output_tokens_details": {"thinking_tokens": 5},
            },
        ],
    }
    parts = parts_from_api(MODEL, usage)
    assert [name for name, _ in parts] == [MODEL, MODEL, "claude-haiku-5-5"]
    answer, compaction, fallback = (part for _, part in parts)
    assert (compaction.input_tokens, compaction.output_tokens) == (1_000, 7)
    inside = answer + fallback
    assert (inside.input_tokens, inside.cache_write_5m_tokens, inside.cache_write_1h_tokens) == (30, 100, 200)
    assert (inside.output_tokens, inside.thinking_tokens, inside.web_searches) == (20, 5, 2)
