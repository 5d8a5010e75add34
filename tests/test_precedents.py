"""What a card says of earlier decisions on the same tool, of its siblings, and of who is still needed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from runs import actions
from runs.models import Approval, Resolution, Run, Step, StepStatus
from runs.reading.differences import MAX_SHOWN, differences
from runs.reading.queue import Card, read_card
from tests.factories import a_lease, a_question, a_run, a_turn, a_waiting_call

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(st.text(max_size=4), JSON, max_size=4)


def lines(then: Any, now: Any) -> list[tuple[str, str, str, str]]:
    found = differences(json.dumps(then), json.dumps(now))
    return [(line.kind, line.path, line.then, line.now) for line in found.shown]


def test_a_difference_says_what_was_then_and_what_is_now() -> None:
    assert lines({"id": "dep_1", "note": "x"}, {"id": "dep_2", "pins": {"zone": "eu"}}) == [
        ("changed", "id", '"dep_1"', '"dep_2"'),
        ("added", "pins.zone", "", '"eu"'),
        ("removed", "note", '"x"', ""),
    ]
    assert lines({"ids": [1, 2]}, {"ids": [1]}) == [("removed", "ids[1]", "2", "")]
    assert lines({"n": 1}, {"n": True}) == [("changed", "n", "1", "true")]
    assert lines({"a": {}}, {"a": None}) == [("changed", "a", "{}", "null")]


def test_of_long_texts_the_place_is_shown_where_they_part() -> None:
    same = "SELECT 1 FROM orders WHERE " * 20
    ((_, _, then, now),) = lines({"sql": same + "id = 1"}, {"sql": same + "id = 2"})
    assert then.startswith("…") and then.endswith('id = 1"')
    assert now.endswith('id = 2"')
    assert len(then) < 100


def test_more_differences_than_fit_are_counted() -> None:
    found = differences(json.dumps({}), json.dumps({str(n): n for n in range(20)}))
    assert (len(found.shown), found.more) == (MAX_SHOWN, 20 - MAX_SHOWN)


@given(then=ARGUMENTS, now=ARGUMENTS)
def test_two_calls_differ_exactly_when_their_arguments_do(then: Any, now: Any) -> None:
    before, after = (json.dumps(arguments, sort_keys=True) for arguments in (then, now))
    found = differences(before, after)
    assert found.none == (before == after)
    assert all(line.then != line.now for line in found.shown)


def test_paths_that_look_alike_are_told_apart() -> None:
    assert lines({"a.b": 1}, {"a": {"b": 1}}) == [("added", "a.b", "", "1"), ("removed", '"a.b"', "1", "")]
    assert lines({"a": "1"}, {"a": 1}) == [("changed", "a", '"1"', "1")]


@pytest.mark.parametrize("junk", ["", "{", "[" * 100_000, "null", "[]"])
def test_arguments_that_are_no_object_are_compared_as_they_are(junk: str) -> None:
    assert not differences(junk, '{"a":1}').none
    assert differences(junk, junk).none


def decided(
    user: User, arguments: dict[str, Any], verdict: str = "approve", ran: dict[str, Any] | None = None
) -> Approval:
    """An earlier call of the same tool, decided and, when `ran` says how, run."""
    lease = a_lease(a_run())
    (step,) = a_turn(lease, ("revert_deployment", "destructive", arguments))
    actions.ask_approval(lease, step.seq, a_question(arguments))
    approval = Approval.objects.get(step=step)
    actions.decide(
        approval_id=approval.pk, voter=user, verdict=verdict, reason="because",  # type: ignore[arg-type]
        revision=1, digest=approval.digest,
    )  # fmt: skip
    if ran is not None:
        actions.start_call(lease, step.seq, tool_version=step.tool_version)
        result = actions.Result(json.dumps(ran), "error" in ran, "Reverted api.", "")
        actions.finish_call(lease, step.seq, result)
    return approval


def verified(passed: bool) -> dict[str, Any]:
    return {"data": {"verification": {"passed": passed, "expected": "< 1 %", "observed": "0.2 %"}}}


def card_of(approval: Approval, viewer: User) -> Card:
    card = read_card(approval.pk, viewer=viewer, now=timezone.now())
    assert card is not None
    return card


@pytest.mark.django_db
def test_the_last_five_decisions_say_how_they_ended(operator: User, second_operator: User) -> None:
    decided(operator, {"deployment_id": "forgotten"})
    decided(operator, {"deployment_id": "dep_0412"}, ran=verified(True))
    decided(operator, {"deployment_id": "dep_0412"}, ran=verified(False))
    decided(operator, {"deployment_id": "dep_1"}, ran={"data": {}})
    decided(second_operator, {"deployment_id": "dep_2"}, "reject")
    unknown = decided(operator, {"deployment_id": "dep_3"})
    Approval.objects.filter(pk=unknown.pk).update(redeemed_at=timezone.now())
    Step.objects.filter(pk=unknown.step_id).update(status=StepStatus.UNKNOWN)
    Resolution.objects.create(
        run=unknown.run, step=unknown.step, verdict="happened", by=second_operator, evidence="I looked."
    )
    taken_back = Approval.objects.get(step__arguments__contains="dep_1")
    Approval.objects.filter(pk=taken_back.pk).update(state="revoked", ended_by="dana", ended_why="Too late.")
    _, _, approval = a_waiting_call()
    card = card_of(approval, operator)
    assert [(p.ask.shown_state, p.by, p.end.word, p.difference.none) for p in card.precedents] == [
        ("approved", "olga", "unknown, then: it happened", False),
        ("rejected", "dana", "did not run", False),
        ("revoked", "dana", "ran, not verified", False),
        ("approved", "olga", "ran, effect not met", True),
        ("approved", "olga", "ran, verified", True),
    ]
    assert card.precedents[2].reason == "Too late."
    assert card.identical == 2
    earlier = Approval.objects.get(pk=card.precedents[3].ask.pk)
    check = card_of(earlier, operator).check
    assert check and (check.passed, check.observed, check.expected) == (False, "0.2 %", "< 1 %")


@pytest.mark.django_db
def test_the_card_shows_the_difference_in_words(client: Client, operator: User) -> None:
    decided(operator, {"deployment_id": "<b>dep_1</b>"}, "reject")
    _, step, _ = a_waiting_call()
    client.force_login(operator)
    for path in ("/approvals/", step.run.get_absolute_url()):
        html = client.get(path).content.decode()
        found = re.search(r'<ul class="args-diff".*?</ul>', html, re.DOTALL)
        assert found, path
        assert "deployment_id" in found[0]
        assert "<b>then</b><del>&quot;&lt;b&gt;dep_1&lt;/b&gt;&quot;</del>" in found[0]
        assert "<b>now</b><ins>&quot;dep_0412&quot;</ins>" in found[0]
        assert "“because”" in html


@pytest.mark.django_db
def test_a_decided_card_shows_what_came_before_it_only(operator: User) -> None:
    first = decided(operator, {"deployment_id": "dep_1"})
    second = decided(operator, {"deployment_id": "dep_2"})
    assert [p.ask.pk for p in card_of(second, operator).precedents] == [first.pk]
    assert card_of(first, operator).precedents == ()


@pytest.mark.django_db
def test_calls_of_one_turn_are_one_group_at_its_first_deadline(client: Client, operator: User) -> None:
    lease = a_lease(a_run("Why is it slow?"))
    steps = a_turn(lease, *(("revert_deployment", "destructive", {"n": n}) for n in range(3)))
    for step, seconds in zip(steps, (900, 30, 900), strict=True):
        asked = a_question({"n": 1}, decide_within_seconds=seconds)
        asked.preview["headline"] = f"Step {step.seq}"
        actions.ask_approval(lease, step.seq, asked)
    _, _, alone = a_waiting_call(decide_within_seconds=600)
    client.force_login(operator)
    html = client.get("/approvals/").content.decode()
    order = [int(pk) for pk in re.findall(r'id="ticket-(\d+)"', html)]
    together = list(Approval.objects.filter(run__user_query="Why is it slow?").values_list("pk", flat=True))
    assert order == [*sorted(together), alone.pk]
    assert html.count('class="turn-stack"') == 1
    assert "3 calls of one turn" in html
    assert f'action="/approvals/{min(together)}/decide/"' in html, "the first of the group is open"
    assert Run.objects.count() == 2


@pytest.mark.django_db
def test_who_is_still_needed_is_named(
    client: Client, operator: User, second_operator: User, viewer: User
) -> None:
    _, _, approval = a_waiting_call(quorum=2)
    client.force_login(operator)
    assert "Still needed: 2 yeses of dana or olga." in client.get("/approvals/").content.decode()
    actions.decide(
        approval_id=approval.pk, voter=operator, verdict="approve", revision=1, digest=approval.digest
    )
    html = client.get("/approvals/").content.decode()
    assert "Still needed: 1 yes of dana." in html
    assert "You have voted" in html
    second_operator.is_active = False
    second_operator.save()
    assert "Nobody else may decide" in client.get("/approvals/").content.decode()
