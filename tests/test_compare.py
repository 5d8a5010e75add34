"""Two runs side by side: aligned by what they did, with every difference."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import DjangoAssertNumQueries

from runs import actions
from runs.models import Run, RunStatus, Step
from runs.reading.compare import Side, align, difference, read_comparison
from tests.factories import a_lease, a_run, a_turn
from tests.long_runs import a_long_run


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """Olga's browser."""
    client.force_login(operator)
    return client


def a_side(seq: int, name: str, arguments: str = "{}", said: str = "ok") -> Side:
    return Side(seq, "tool", name, "succeeded", "", None, 1.0, arguments, said)


def test_steps_that_did_the_same_stand_beside_each_other() -> None:
    left = [a_side(1, "logs"), a_side(2, "metrics", "m1"), a_side(3, "revert")]
    right = [
        a_side(1, "logs"),
        a_side(2, "deploys"),
        a_side(3, "metrics", "m2"),
        a_side(4, "revert", said="no"),
    ]
    pairs = align(left, right)
    shown = [
        (pair.left.name if pair.left else "", pair.right.name if pair.right else "", pair.state)
        for pair in pairs
    ]
    assert shown == [
        ("logs", "logs", "same"),
        ("", "deploys", "right"),
        ("metrics", "metrics", "differs"),
        ("revert", "revert", "differs"),
    ]
    assert [pair.differences for pair in pairs] == [(), (), ("arguments",), ("result",)]


sides = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=12)


@given(sides, sides)
def test_every_step_of_both_appears_once_and_in_order(
    left: list[tuple[str, str]], right: list[tuple[str, str]]
) -> None:
    ours, theirs = (
        [a_side(n, name, arguments) for n, (name, arguments) in enumerate(each)] for each in (left, right)
    )
    pairs = align(ours, theirs)
    assert [pair.left for pair in pairs if pair.left] == ours
    assert [pair.right for pair in pairs if pair.right] == theirs
    assert all(pair.left.loose == pair.right.loose for pair in pairs if pair.left and pair.right)
    assert all(pair.state == "same" for pair in align(ours, ours))


@given(st.text("ab\n", max_size=60), st.text("ab\n", max_size=60))
def test_a_difference_names_the_lines_of_both(left: str, right: str) -> None:
    lines = difference(left, right)
    assert bool(lines) == (left.splitlines() != right.splitlines())
    assert {line.text for line in lines if line.state == "was"} <= set(left.splitlines())
    assert {line.text for line in lines if line.state == "now"} <= set(right.splitlines())


@pytest.mark.django_db
def test_a_fork_is_compared_with_the_run_it_came_from(
    page: Client, operator: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    lease = a_lease(a_run("Why is it slow?"))
    a_turn(lease, ("get_metrics", "read", {"service": "api"}), text="I look.")
    Step.objects.filter(run=lease.run_id, seq=2).update(
        status="succeeded", result=json.dumps({"status": "ok", "evidence_id": "ev_01", "summary": "fine"})
    )
    a_turn(lease, text="It is <b>fine</b>.")
    actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="It is fine.\nSurely.")
    left = Run.objects.get()
    right = actions.fork_run(run_id=left.pk, step=2, instruction="Look twice.", user=operator, actor="olga")
    Step.objects.filter(run=right, seq=2).update(
        result=json.dumps({"status": "ok", "evidence_id": "ev_77", "summary": "fine"})
    )
    with django_assert_num_queries(2):
        comparison = read_comparison(left, right)
    assert [pair.state for pair in comparison.pairs] == ["same", "same", "left", "right"]
    first = comparison.first_difference
    assert first is not None and first.left is not None and first.left.seq == 3
    html = page.get(right.get_absolute_url()).content.decode()
    assert f"left={left.request_id}&amp;right={right.request_id}" in html
    html = page.get(f"/runs/compare/?left={left.pk}&right={right.request_id}").content.decode()
    assert "2 the same, 0 different, 2 without a counterpart" in html
    assert "Surely." in html and "<b>fine</b>" not in html


@pytest.mark.django_db
def test_what_differs_in_two_steps_is_shown_when_it_is_opened(page: Client) -> None:
    left, right = a_long_run(12), a_long_run(12)
    Step.objects.filter(run=right, seq=2).update(
        arguments=json.dumps({"service": "<i>checkout</i>", "metric": "m2"}), status="failed"
    )
    Step.objects.filter(run=right, seq=1).update(cost_usd=Decimal("0.005"))
    address = f"/runs/compare/?left={left.request_id}&right={right.request_id}"
    html = page.get(address).content.decode()
    assert "<b>status, arguments</b>" in html and "+$0.0010" in html
    part = page.get(f"{address}&steps=2-2", headers={"HX-Request": "true"}).content.decode()
    assert "&lt;i&gt;checkout" in part and "Arguments" in part and "<h1" not in part
    assert "&lt;i&gt;checkout" in page.get(f"{address}&steps=2-2").content.decode(), "without script, too"
    assert "are the same" in page.get(f"{address}&steps=3-3").content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("", 200, "Choose two runs"),
        ("left=1", 404, "There is no run 1"),
        ("left=x&right=<script>", 404, "There is no run x and no run &lt;script&gt;"),
        ("left=²&right=99999999999999999999", 404, "There is no run"),
    ],
)
def test_a_run_that_does_not_exist_is_named(page: Client, query: str, status: int, sentence: str) -> None:
    response = page.get(f"/runs/compare/?{query}")
    assert response.status_code == status
    assert sentence in response.content.decode()
