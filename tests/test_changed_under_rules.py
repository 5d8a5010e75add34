"""A call that a person changed, under rules and groups that people keep: who decides on what, and when."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import Group, User

from runs import actions
from runs.models import ApprovalState, GrantUse, PolicyRule, StepStatus
from runs.reading.receipts import receipt_text
from tests.test_policy_rules import in_force, wanted
from tests.test_receipts import checker, say
from tests.test_revisions import asked, change, decide, goes_on, newest

pytestmark = pytest.mark.django_db(transaction=True)
FOUR_EYES = {"kind": "ask", "self_approval": False, "conditions": ""}


@pytest.fixture
def on_call(owner: User, operator: User) -> Group:
    """Petra and olga."""
    group, _ = Group.objects.get_or_create(name="On-call")
    group.user_set.add(owner, operator)
    return group


def test_whoever_changed_a_call_does_not_check_it_alone(owner: User, operator: User, on_call: Group) -> None:
    in_force(owner, name="somebody-else", roles=["On-call"], **FOUR_EYES)
    step, approval = asked()
    change(approval, operator, replicas=6)
    goes_on(step)
    second = newest(step)
    assert (second.rule, second.quorum, second.self_approval) == ("somebody-else", 1, False)
    with pytest.raises(actions.MayNotDecide, match="the rule somebody-else wants somebody else to decide"):
        decide(second, operator)
    decide(second, owner)
    run = goes_on(step, to_the_end=True)
    assert step.status == StepStatus.SUCCEEDED
    whole = json.loads(receipt_text(run, step.seq))
    assert checker.verify(json.dumps(whole))[1] == ""
    for words, forge in {
        "approved by 0 people": say("approval.asked", edited_by=owner.pk),
        "in none of the groups On-call": say("approval.vote", groups=["Friends"]),
        "whoever started the run": say("approval.vote", self_approval=True),
    }.items():
        forged = json.loads(json.dumps(whole))
        forge(forged)
        if words == "approved by 0 people":
            forged["approval"]["edited_by"] = owner.pk
        assert words in checker.verify(json.dumps(forged))[1]


@pytest.mark.parametrize("loss", ["group", "permission"])
def test_a_yes_of_somebody_who_may_not_decide_any_more_starts_nothing(
    owner: User, operator: User, on_call: Group, loss: str
) -> None:
    in_force(owner, name="of-on-call", roles=["On-call"], quorum="2", **FOUR_EYES)
    step, approval = asked()
    decide(approval, operator)
    decide(approval, owner)
    if loss == "group":
        on_call.user_set.remove(operator)
    else:
        operator.user_permissions.clear()
    goes_on(step, to_the_end=True)
    assert (newest(step).state, step.status) == (ApprovalState.INVALIDATED, StepStatus.REFUSED)
    assert "olga, who approved it, may not decide on it any more. It did not run" in step.error


@pytest.mark.parametrize(
    ("conditions", "runs"),
    [("replicas = 8", True), ("replicas = 6", False)],
)
def test_rules_that_change_later_judge_what_would_run_and_not_what_was_proposed(
    owner: User, conditions: str, runs: bool
) -> None:
    step, approval = asked()
    change(approval, owner, replicas=6)
    goes_on(step)
    decide(newest(step), owner)
    in_force(owner, name="later", kind="deny", conditions=conditions)
    goes_on(step, to_the_end=True)
    assert step.status == (StepStatus.SUCCEEDED if runs else StepStatus.REFUSED)


def test_a_change_that_a_grant_covers_is_still_asked_and_costs_no_use(owner: User) -> None:
    step, approval = asked()
    in_force(owner, name="", kind="grant", conditions="replicas = 6", uses="3", seconds="1 h")
    change(approval, owner, replicas=6)
    goes_on(step)
    second = newest(step)
    assert (second.is_open, second.rule) == (True, approval.rule)
    decide(second, owner)
    goes_on(step, to_the_end=True)
    assert step.status == StepStatus.SUCCEEDED
    assert not GrantUse.objects.exists() and PolicyRule.objects.get().used == 0


def test_a_rule_that_lets_run_less_than_before_withdraws_what_asks_too_little(owner: User) -> None:
    in_force(owner, name="broad", kind="ask", quorum="2", self_approval=True, conditions="")
    narrow = in_force(owner, name="narrow", kind="ask", self_approval=True, conditions="replicas <= 9")
    _, approval = asked()
    assert (approval.rule, approval.quorum) == ("narrow", 1)
    milder = wanted(name="narrow", kind="allow", conditions="replicas <= 2")
    draft = actions.draft_rule(milder, why="Only these.", by=owner, pk=narrow.pk).draft
    assert draft is not None
    tested = actions.backtest_rule(narrow.pk, days=30, by=owner).pk
    actions.enable_rule(narrow.pk, draft=draft.pk, backtest=tested, why="Only these.", by=owner, accepts=True)
    approval.refresh_from_db()
    assert approval.state == ApprovalState.INVALIDATED
