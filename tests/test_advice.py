"""Advice: what other models would have cost, and what could be cheaper, each by arithmetic of its own."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from genai_prices import extract_usage

from runs.agents import Limits
from runs.models import Run
from runs.money import Usage
from runs.reading.advice.attempts import look_at
from runs.reading.advice.caching import caching_advice, minimum, unread_tokens
from runs.reading.advice.limits import limit_advice
from runs.reading.advice.results import carried_by_tool, result_advice
from runs.reading.advice.suggestions import Advice
from runs.reading.advice.what_if import compare_models, todays_prices
from tests.ledgers import Attempt, an_ended_run, listed, priced_anew

pytestmark = pytest.mark.django_db
START = datetime(2026, 11, 10, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
# Prices of claude-sonnet-5-5: input 2, write 2.5, for an hour 4, read 0.10, output 10.


def called(at: datetime, *usage: int, **fields: object) -> Attempt:
    return Attempt(Usage(*usage), at, prices=listed(at=at), fields=dict(fields))


def titled(advice: list[Advice], words: str) -> Advice:
    (found,) = [one for one in advice if words in one.title]
    return found


def test_what_if_is_what_a_formula_of_its_own_says_for_every_call() -> None:
    chance = random.Random(3)
    for n in range(60):
        usage = Usage(*(chance.randrange(0, chance.choice([300, 60_000])) for _ in range(5)), 0, n % 3)
        context = ["", "batch", "fast"][n % 3]
        model = "mythos-x" if n % 10 == 0 else "claude-sonnet-5-5"
        an_ended_run(Attempt(usage, START + n * MINUTE, model, None, {"context": context}))
    looked = look_at("incident", 200)
    now = timezone.now()
    found = compare_models(looked, todays_prices(now))
    assert (found.attempts, found.left_out) == (54, 6) and "claude-mythos-5" in found.unpriced_models
    assert [one.cost for one in found.models] == sorted(one.cost for one in found.models)
    for one in found.models:
        by_hand = sum(
            cost_by_hand(one.model, attempt.usage, attempt.context, now)
            for attempt in looked.all
            if attempt.model != "mythos-x"
        )
        assert one.cost == by_hand == sum(line.amount for line in one.lines), one.model
        assert one.change == by_hand - found.own
    (own,) = [one for one in found.models if one.is_own]
    assert own.model == "claude-sonnet-5-5" and not own.change
    (tiered,) = [one for one in found.models if one.model == "claude-haiku-5-5"]
    assert (
        len({line.unit for line in tiered.lines if line.name == "input"}) > 1
    )  # long prompts cost five times


def cost_by_hand(model: str, usage: Usage, context: str, now: datetime) -> Decimal:
    """What the package of prices says of this one call, from the usage as the API would have reported it."""
    raw = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "server_tool_use": {"web_search_requests": usage.web_searches},
    }
    selected = (
        {"processing": "batch"} if context == "batch" else {"speed": "fast"} if context == "fast" else {}
    )
    theirs = extract_usage({"model": model, "usage": raw}, provider_id="anthropic")
    return theirs.calc_price(genai_request_timestamp=now, price_context=selected).total_price


def test_fewer_than_twenty_runs_are_no_ground_for_a_suggestion(client: Client, viewer: User) -> None:
    for n in range(19):
        an_ended_run(
            called(START + n * MINUTE, 2_000, 0, 0, 0, 100), called(START + n * MINUTE, 4_000, 0, 0, 0, 50)
        )
    looked = look_at("incident", 50)
    advice = [*caching_advice(looked), *result_advice(looked), *limit_advice(looked, Limits())]
    assert {one.kind for one in advice} == {"missing"}
    assert all(("at least 20" in one.says and "19" in one.says) or "0" in one.says for one in advice)
    client.force_login(viewer)
    html = client.get("/costs/advice/incident/").content.decode()
    assert "Nothing to suggest" in html and "claude-haiku-5-5" in html


def test_longer_caching_is_advised_when_pauses_make_it_cheaper_and_not_otherwise() -> None:
    for n in range(20):
        at = START + n * timedelta(hours=3)
        pause = timedelta(minutes=20 if n < 12 else 2)
        an_ended_run(
            called(at, 10, 40_000, 0, 0, 500),
            called(at + pause, 10, 41_000 if n < 12 else 1_000, 0, 0 if n < 12 else 40_000, 500),
        )
    found = titled(list(caching_advice(look_at("incident", 50))), "How long")
    lost = 12 * 40_000 * (Decimal("2.5") - Decimal("0.10")) / 10**6
    more = (20 * 40_000 + 12 * 41_000 + 8 * 1_000) * (Decimal(4) - Decimal("2.5")) / 10**6
    assert lost < more and found.kind == "fine"
    assert (
        f"480,000 tokens were written again after 12 pauses instead of read: ${lost:f} more"[:60]
        in found.sums[0]
    )
    for n in range(20):
        at = START + timedelta(days=5) + n * timedelta(hours=3)
        calls = [called(at + k * timedelta(minutes=20), 10, 40_000, 0, 0, 5) for k in range(4)]
        an_ended_run(*calls)
    found = titled(list(caching_advice(look_at("incident", 50))), "How long")
    assert found.kind == "do" and len(found.runs) == 5
    saving = (12 + 60) * 40_000 * Decimal("2.4") / 10**6 - (more + 80 * 40_000 * Decimal("1.5") / 10**6)
    assert found.sums[2].endswith(f"${saving.normalize():f} saved by 1 hour")


def test_what_is_written_and_never_read_is_found() -> None:
    at = START
    attempts = [
        called(at, 0, 1_000, 0, 0, 1),  # all of it is read again
        called(at, 0, 500, 0, 1_000, 1),  # 200 of it are read
        called(at, 0, 300, 0, 1_200, 1),  # none is
    ]
    run = an_ended_run(*attempts)
    assert unread_tokens(look_at("incident", 50).attempts[run.pk]) == 300 + 300
    for n in range(20):
        an_ended_run(called(at + n * MINUTE, 0, 30_000, 0, 0, 1))
    found = titled(list(caching_advice(look_at("incident", 50))), "costs and saves")
    assert found.kind == "do" and "cheaper without caching" in found.says
    premium = (20 * 30_000 + 1_800) * Decimal("0.5") / 10**6
    saved = 2_200 * Decimal("1.90") / 10**6
    assert found.sums[2].endswith(f"= −${premium - saved:f}".rstrip("0"))


def test_conversations_that_are_sent_uncached_are_found_and_short_ones_are_not() -> None:
    for n in range(20):
        at = START + n * MINUTE
        an_ended_run(called(at, 10_000, 0, 0, 0, 1), called(at + MINUTE, 12_000, 0, 0, 0, 1))
    found = titled(list(caching_advice(look_at("incident", 50))), "not cached")
    each = 10_000 * Decimal("1.90") / 10**6 - (10_000 + 2_000) * Decimal("0.5") / 10**6
    assert found.kind == "do" and f"would have cost ${20 * each:f}".rstrip("0") in found.sums[0]
    for n in range(40):
        at = START + timedelta(days=1) + n * MINUTE
        an_ended_run(called(at, 400, 0, 0, 0, 1), called(at + MINUTE, 450, 0, 0, 0, 1), agent="short")
    found = titled(list(caching_advice(look_at("short", 50))), "not cached")
    assert found.kind == "fine" and "80 calls of 40 runs" in found.sums[0]
    assert (minimum("claude-opus-4-5-20251101"), minimum("claude-opus-5-5")) == (4096, 512)


def test_limits_are_compared_with_what_successful_runs_needed() -> None:
    for n in range(30):
        an_ended_run(called(START + n * MINUTE, 0, 0, 0, 0, 1_000 + n), tool_calls=7)
    for n in range(3):
        astray = called(START + timedelta(days=1) + n * MINUTE, 0, 0, 0, 0, 40_000)
        an_ended_run(astray, status="stopped", reason="tool_calls", tool_calls=8)
    looked = look_at("incident", 50)
    advice = list(limit_advice(looked, Limits(tool_calls=8, cost_usd=Decimal(2))))
    cost = titled(advice, "Limit on cost")
    assert cost.kind == "do" and cost.says == "Lower it to $0.021."  # 2 x 1,029 tokens x $10/M, rounded up
    calls = titled(advice, "Limit on tool calls")
    assert calls.kind == "do" and "3 of 33 runs were stopped by it" in calls.sums
    failures = titled(advice, "failed after spending")
    highest = Decimal("0.01029")
    assert failures.kind == "do" and len(failures.runs) == 3
    assert f"= ${3 * (Decimal('0.4') - highest):f}" in failures.sums[1]


def test_results_are_charged_to_their_tool_in_every_later_call() -> None:
    for n in range(20):
        at = START + n * timedelta(hours=1)
        an_ended_run(
            called(at, 1_000, 0, 0, 0, 100),
            called(at + MINUTE, 1_100, 0, 0, 0, 50, failed=True, caused_by="search_logs"),
            called(at + MINUTE, 9_100, 0, 0, 0, 100, caused_by="search_logs"),  # 8,000 new
            called(at + 2 * MINUTE, 9_500, 0, 0, 0, 100, caused_by="get_metrics"),  # 300 new
            called(at + 3 * MINUTE, 9_600, 0, 0, 0, 100),
        )
    looked = look_at("incident", 50)
    logs = carried_by_tool(looked)["search_logs"]
    assert (logs.turns, logs.tokens, logs.later_tokens) == (20, 160_000, 320_000)
    assert logs.cost == (160_000 + 320_000) * Decimal(2) / 10**6
    results, retries = list(result_advice(looked))
    assert results.kind == "do" and results.says.startswith("Results of search_logs take 79.")
    assert retries.sums[0] == "20 of 100 attempts failed (20.0 %)"


def test_a_corrected_attempt_counts_with_the_price_that_holds_now() -> None:
    run = an_ended_run(Attempt(Usage(input_tokens=1_000), START, "mythos-x"))
    priced_anew(run.charges.get(), listed(at=START), booked_at=START + MINUTE)
    (attempt,) = look_at("incident", 50).all
    assert attempt.cost == Decimal("0.002") and attempt.prices == listed(at=START)


def test_of_very_long_runs_fewer_are_looked_at() -> None:
    for n in range(4):
        an_ended_run(called(START + n * MINUTE, 1_000, 0, 0, 0, 1), model_calls=9_000)
    looked = look_at("incident", 50)
    assert len(looked.runs) == 2 and looked.is_cut
    Run.objects.update(model_calls=90_000)
    assert len(look_at("incident", 50).runs) == 1


def test_the_page_reads_the_last_runs_only_and_links_those_behind_it(client: Client, viewer: User) -> None:
    for n in range(60):
        at = START + n * MINUTE
        an_ended_run(called(at, 10_000, 0, 0, 0, 1), called(at + MINUTE, 12_000, 0, 0, 0, 1), simulated=n < 5)
    client.force_login(viewer)
    with CaptureQueriesContext(connection) as queries:
        html = client.get("/costs/advice/incident/?runs=50").content.decode()
    assert len(queries) < 20 and "last 50 ended runs" in html
    first = Run.objects.filter(simulated=False).order_by("pk").first()
    assert first is not None and "sent again uncached" in html and f">run {first.pk + 5}</a>" in html
    assert "last 5 ended runs" in client.get("/costs/advice/incident/?simulated=1").content.decode()
    assert client.get("/costs/advice/nobody/").status_code == 404
    assert "/costs/advice/incident/" in client.get("/costs/advice/").content.decode()
    assert "/costs/advice/incident/" in client.get("/agents/incident/").content.decode()
