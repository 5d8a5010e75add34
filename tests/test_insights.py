"""Pages about agents, tools and errors: what they count, and that they read a bounded number of rows."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import DjangoAssertNumQueries

from runs import actions
from runs.models import Approval, Run, RunStatus, Step
from runs.reading import tool_report
from runs.reading.agent_report import read_agent, read_agents
from runs.reading.failures import fingerprint_of, pattern_of, read_failures
from runs.reading.histogram import draw_histogram, percentile
from runs.reading.periods import find_period
from runs.reading.tool_report import read_tool, read_tools
from runs.reading.words import duration
from tests.factories import a_lease, a_run, a_turn, a_waiting_call
from tests.long_runs import a_long_run

WEEK = find_period("7")


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """Olga's browser."""
    client.force_login(operator)
    return client


def html_of(page: Client, address: str) -> str:
    response = page.get(address)
    assert response.status_code == 200, address
    return response.content.decode()


# ------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("No answer within 20 s.", "No answer within 20.5 s."),
        (
            "run 8f2c41d0-1111-4222-8333-123456789abc is gone",
            "run aaaaaaaa-1111-4222-8333-123456789abc is gone",
        ),
        ("refused by 10.0.0.1:5432", "refused by 192.168.1.20:6432"),
        ("no service 'api'", "no service 'checkout'"),
        ("failed at 2026-11-22T07:00:00Z", "failed at 2026-11-21 06:59:12.123"),
        ("request req_011abc was  lost", "request req_0zzz was lost"),
        ("commit 9f3c41b7aa is bad", "commit 00aa11bb22cc is bad"),
        ("GET https://a.example/1?x=2 failed", "GET http://b.example failed"),
    ],
)
def test_errors_that_differ_only_in_values_are_the_same(one: str, other: str) -> None:
    assert pattern_of(one) == pattern_of(other)


def test_errors_that_say_something_else_are_others() -> None:
    said = ["No answer within 20 s.", "Busy.", "the deadbeef facade is face down", ""]
    assert len({fingerprint_of("tool", "x", "timeout", pattern_of(text)) for text in said}) == 4
    assert fingerprint_of("tool", "x", "timeout", "a") != fingerprint_of("tool", "y", "timeout", "a")
    assert fingerprint_of("model", "one", "timeout", "a") == fingerprint_of(
        "model", "another", "timeout", "a"
    )


@given(st.text(max_size=600))
def test_any_text_has_a_pattern(text: str) -> None:
    pattern = pattern_of(text)
    assert pattern_of(pattern) == pattern_of(pattern_of(pattern))


@pytest.mark.django_db
def test_errors_are_grouped_across_runs_and_lead_to_their_steps(
    page: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    first, second = a_long_run(160), a_long_run(60)
    Step.objects.filter(run=second, seq=60).update(
        status="unknown", error_kind="timeout", error="Nobody <b>knows</b>.", ended_at=timezone.now()
    )
    Step.objects.filter(run=first, seq=2).update(status="failed", ended_at=timezone.now() - timedelta(days=9))
    with django_assert_num_queries(2):
        failures = read_failures(WEEK, now=timezone.now())
    common, rare = failures.groups
    assert (common.count, common.runs, common.pattern) == (
        3,
        {first.pk, second.pk},
        "No answer within <n> s.",
    )
    assert (rare.count, rare.pattern) == (1, "Nobody <b>knows</b>.")
    html = html_of(page, "/errors/?period=7")
    assert f'href="{first.get_absolute_url()}?step=150#row-150"' in html
    assert "Nobody &lt;b&gt;knows" in html
    assert "Nothing failed" in html_of(page, "/errors/?tool=search_logs")


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "sqlite", reason="asks SQLite for its plan")
def test_the_newest_failures_are_found_along_their_index() -> None:
    with CaptureQueriesContext(connection) as asked:
        read_failures(WEEK, now=timezone.now())
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {asked.captured_queries[0]['sql']}")
        plan = " ".join(row[-1] for row in cursor.fetchall())
    assert "step_failures" in plan


@pytest.mark.django_db
def test_only_so_many_failures_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.reading.failures.MOST", 2)
    a_long_run(310)
    failures = read_failures(WEEK, now=timezone.now())
    assert (failures.looked_at, failures.is_cut, failures.groups[0].count) == (2, True, 2)


# --------------------------------------------------------------- histograms


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_every_value_stands_in_one_bar(values: list[float]) -> None:
    chart = draw_histogram("Time", values, duration)
    assert chart is not None
    assert sum(bar.count for bar in chart.bins) == len(values)
    assert len(chart.bins) <= 17
    assert all(0 <= float(bar.y) <= 96 for bar in chart.bins)


def test_percentiles_are_values_that_occurred() -> None:
    assert [percentile([1, 2, 3, 4], share) for share in (0, 0.5, 0.95, 1)] == [1, 2, 4, 4]
    assert draw_histogram("Time", [], duration) is None


# -------------------------------------------------------------------- tools


@pytest.mark.django_db
def test_a_tool_shows_how_it_is_called_and_what_nobody_uses(
    page: Client,
    second_operator: User,
    django_assert_max_num_queries: DjangoAssertNumQueries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = a_long_run(60)
    calls = Step.objects.filter(run=run, name="get_metrics")
    for call in calls:
        call.counted_at = call.begun_at = call.started_at
        call.arguments = json.dumps({"service_name": "api", "metric": "m", "start": None})
        call.save()
    now = timezone.now()
    tallies = {tally.name: tally for tally in read_tools(WEEK, now=now)}
    metrics = tallies["get_metrics"]
    assert (metrics.calls, metrics.failed, metrics.median, metrics.kinds) == (40, 1, "300 ms", {"timeout": 1})
    assert tallies["search_logs"].calls == 0
    with django_assert_max_num_queries(6):
        tool = read_tool("get_metrics", WEEK, now=now)
    assert tool is not None
    uses = {use.name: use for use in tool.arguments}
    assert uses["service_name"].share == 1
    assert any(use.is_unused for use in uses.values())
    assert (tool.looked_at, len(tool.recent_errors)) == (40, 1)
    html = html_of(page, "/tools/get_metrics/")
    assert "never" in html and "reads-are-free" in html and "input_schema" in html
    assert "among the newest" not in html
    monkeypatch.setattr(tool_report, "MOST_CALLS", 25)
    assert "among the newest 25 of all tools" in html_of(page, "/tools/get_metrics/")
    assert "get_metrics" in html_of(page, "/tools/")
    assert page.get("/tools/no_such_tool/").status_code == 404


@pytest.mark.django_db
def test_a_gated_tool_shows_how_often_people_agree(operator: User) -> None:
    for verdict in ("approve", "reject", "reject"):
        _, _, approval = a_waiting_call()
        actions.decide(
            approval_id=approval.pk, voter=operator, verdict=verdict, reason="so", revision=1,
            digest=approval.digest,
        )  # fmt: skip
    assert Approval.objects.count() == 3
    tool = read_tool("revert_deployment", WEEK, now=timezone.now())
    assert tool is not None
    assert tool.tally.asked == 3
    assert tool.tally.approval_share == pytest.approx(1 / 3)
    assert [verdict.kind for verdict in tool.verdicts] == ["ask"]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", "a/b", "<script>", "../x", "ü %"])
def test_a_name_that_a_model_made_up_breaks_no_page(page: Client, name: str) -> None:
    run = a_long_run(3)
    now = timezone.now()
    Step.objects.filter(run=run, seq=2).update(name=name, counted_at=now, status="failed", ended_at=now)
    Run.objects.filter(pk=run.pk).update(agent=name)
    for address in (f"{run.get_absolute_url()}?step=2", "/tools/", "/agents/", "/errors/"):
        assert "<script>" not in html_of(page, address).replace("<script>\n", "")
    if name:
        assert html_of(page, reverse("tool", args=[name])) and html_of(page, reverse("agent", args=[name]))


# ------------------------------------------------------------------- agents


@pytest.mark.django_db
def test_an_agent_shows_success_cost_time_and_why_runs_ended(
    page: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(3):
        a_long_run(30)
    stopped = a_long_run(30, status=RunStatus.STOPPED)
    Run.objects.filter(pk=stopped.pk).update(reason="cost_usd")
    a_turn(a_lease(a_run()))
    Run.objects.filter(pk=a_long_run(30).pk).update(created_at=timezone.now() - timedelta(days=9))
    with django_assert_num_queries(1):
        found = read_agent("incident", WEEK, now=timezone.now())
    assert found is not None
    tally = found.tally
    assert (tally.runs, tally.ended, tally.success_share) == (5, 4, 0.75)
    assert [(end.status, end.reason, end.count) for end in found.ends] == [
        ("succeeded", "", 3),
        ("stopped", "cost_usd", 1),
    ]
    assert tally.median_cost == "$0.0400"
    (listed,), is_cut = read_agents(WEEK, now=timezone.now())
    assert (listed.runs, is_cut) == (5, False)
    html = html_of(page, "/agents/incident/")
    assert "cost in USD" in html and "claude-sonnet-5-5" in html and 'href="/tools/get_metrics/"' in html
    assert "incident" in html_of(page, "/agents/")
    assert page.get("/agents/nobody/").status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/agents/", "/agents/incident/", "/tools/", "/tools/get_metrics/", "/errors/"]
)
def test_an_empty_installation_has_these_pages_too(page: Client, path: str) -> None:
    for period in ("24h", "7", "30", "nonsense"):
        assert html_of(page, f"{path}?period={period}")
