"""Rules and grants of people: what they may do, who wins, and that nothing is let through by accident."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connections
from django.db.models import F
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from runs import actions
from runs.actions import Lease, WantedRule
from runs.engine import calls
from runs.models import (
    Approval,
    ApprovalState,
    Event,
    GrantUse,
    PolicyChange,
    PolicyHead,
    PolicyRule,
    Run,
    Step,
    StepStatus,
)
from runs.models.in_force import policy_in_force
from runs.reading.invariants import contradictions
from tests.conftest import _user
from tests.factories import a_lease, a_run, a_turn, run_calls
from tools import policy
from tools.base import Result, ToolContext, tool
from tools.conditions import BadCondition, contradiction, parse
from tools.policy import Ask, Policy, StoredRule
from tools.registry import TOOLS

SCALE = TOOLS["scale_service"]
EFFECT = {
    "service_name": "api",
    "metric": "error_rate",
    "comparison": "below",
    "value": 1.0,
    "within_seconds": 300,
}
ARGUMENTS: dict[str, Any] = {
    "service_name": "api",
    "replicas": 6,
    "reason": "It is overloaded.",
    "expected_effect": EFFECT,
}


def wanted(**fields: Any) -> WantedRule:
    """A rule that lets small scaling of one service through."""
    values: dict[str, Any] = {
        "name": "small-scaling",
        "kind": "allow",
        "reason": "Small steps are safe.",
        "tool": "scale_service",
        "conditions": "replicas <= 6",
    }
    return WantedRule(**(values | fields))


def in_force(by: User, **fields: Any) -> PolicyRule:
    """A rule or a grant that decides from now on, back-tested where it has to be."""
    rule = actions.draft_rule(wanted(**fields), why="Try it.", by=by)
    assert rule.draft is not None
    tested = None
    if rule.draft.values["kind"] in {"allow", "grant"}:
        tested = actions.backtest_rule(rule.pk, days=30, by=by).pk
    return actions.enable_rule(
        rule.pk, draft=rule.draft.pk, backtest=tested, why="It is right.", by=by, accepts=True
    )


def a_proposed_call(arguments: dict[str, Any] = ARGUMENTS, user: User | None = None) -> tuple[Lease, Step]:
    """A driven run whose last turn asks to scale a service."""
    run = actions.start_run(question="Scale it", agent="incident", user=user, started_by="alert")
    lease = a_lease(run)
    (step,) = a_turn(lease, ("scale_service", "destructive", arguments))
    return lease, step


def authorize(lease: Lease, step: Step) -> Step:
    """Let policy look at this call, and no tool run; the step as it is then."""
    with actions.together(lease):
        run, steps = actions.driven(lease)
        act = calls.authorize(lease, run, steps, [step.seq])
    if act is not None:
        record = act()
        with actions.together(lease):
            record.store()
    return Step.objects.get(pk=step.pk)


def begin(lease: Lease, step: Step) -> Step:
    """Let this call start, if it may; its tool is not run."""
    with actions.together(lease):
        run, steps = actions.driven(lease)
        calls.begin_calls(lease, run, steps, [step.seq])
    return Step.objects.get(pk=step.pk)


def the_event(run_id: int, kind: str) -> dict[str, Any]:
    return Event.objects.filter(run=run_id, kind=kind).latest("seq").fields


# ------------------------------------------------------------ the language


@pytest.mark.parametrize(
    "lines",
    [
        "replicas > 6\nreplicas < 6",
        "replicas >= 6\nreplicas < 6",
        "replicas > 8\nreplicas in [6, 8]",
        'service_name = "api"\nservice_name = "web"',
        'service_name = "api"\nservice_name != "api"',
        'service_name in ["api"]\nservice_name not in ["api", "web"]',
        'expected_effect.metric = "a"\nexpected_effect.metric = "b"',
    ],
)
def test_conditions_that_no_call_can_fit_are_named(lines: str) -> None:
    assert "never hold together" in contradiction(parse(lines))


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "replicas >= 6\nreplicas <= 6",
        "replicas > 6\nreplicas < 6.5",
        "replicas > 6\nreplicas != 7",
        'service_name in ["api", "web"]\nservice_name != "api"',
        'service_name = "api"\nreplicas = 6',
    ],
)
def test_conditions_that_some_call_fits_are_taken(lines: str) -> None:
    assert contradiction(parse(lines)) == ""


@pytest.mark.parametrize(
    ("text", "arguments", "holds"),
    [
        ("replicas <= 6", {"replicas": 6}, True),
        ("replicas <= 6", {"replicas": 6.5}, False),
        ("replicas <= 6", {"replicas": "6"}, False),
        ("replicas <= 6", {"replicas": True}, False),
        ("replicas <= 6", {}, False),
        ("replicas = 6", {"replicas": 6.0}, True),
        ("replicas = 1", {"replicas": True}, False),
        ('service_name in ["api", "web"]', {"service_name": "web"}, True),
        ('service_name not in ["api"]', {"service_name": "api"}, False),
        ('service_name not in ["api"]', {}, False),
        ('service_name != "api"', {"service_name": "web"}, True),
        ('e.metric = "cpu"', {"e": {"metric": "cpu"}}, True),
        ('e.metric = "cpu"', {"e": "cpu"}, False),
        ('e = {"b": [1, null], "a": 2}', {"e": {"a": 2, "b": [1, None]}}, True),
        ("e = {}", {"e": []}, False),
        ("replicas > 1\nreplicas < 3", {"replicas": 2}, True),
        ("replicas > 1\nreplicas < 3", {"replicas": 3}, False),
    ],
)
def test_a_condition_compares_canonical_values(text: str, arguments: dict[str, Any], holds: bool) -> None:
    assert all(one.holds(arguments) for one in parse(text)) is holds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("service_name = api", 'Texts need quotes: service_name = "api"'),
        ("replicas", "is no condition"),
        ("replicas < six", "no JSON value"),
        ("replicas <= true", "compares numbers"),
        ("replicas = NaN", "JSON"),
        ("replicas = 1e999", "JSON"),
        (f"replicas <= {'9' * 400}", "number beyond"),
        ('e = {"a": 1, "a": 2}', "twice"),
        ('e = "\\ud800"', "surrogate"),
        ("replicas in []", "not empty"),
        ("replicas in 3", "list"),
        ("\n".join(f"a{n} = 1" for n in range(21)), "At most 20"),
    ],
)
def test_what_is_no_condition_is_explained(text: str, says: str) -> None:
    with pytest.raises(BadCondition, match=says):
        parse(text)


def test_two_texts_that_mean_the_same_are_the_same_rule() -> None:
    assert parse('b = 1\n\n  a in ["x","y"]\nb == 1') == parse('a in ["x", "y"]\nb =  1')
    again = "\n".join(str(one) for one in parse('a.b = {"z": 1, "a": "ü"}'))
    assert parse(again) == parse('a.b = {"a":"ü","z":1}')


# ------------------------------------------------------------ who wins


def rule(key: int, kind: Any, conditions: str = "", **fields: Any) -> StoredRule:
    return StoredRule(key, key, f"rule-{key}", kind, "Because.", conditions=parse(conditions), **fields)


def decide(*rules: StoredRule, arguments: dict[str, Any] = ARGUMENTS, name: str = "scale_service") -> Any:
    return policy.decide(TOOLS[name], arguments, "incident", "production", Policy(rules, "v"))


@pytest.mark.parametrize(
    ("rules", "winner"),
    [
        ([], "remediation-needs-a-person"),
        ([rule(1, "allow", tool="scale_service")], "rule-1"),
        ([rule(1, "allow", tool="revert_deployment")], "remediation-needs-a-person"),
        ([rule(1, "allow", agent="other")], "remediation-needs-a-person"),
        ([rule(1, "allow", environment="staging")], "remediation-needs-a-person"),
        ([rule(1, "allow", effect="write")], "remediation-needs-a-person"),
        # A denial wins, however little it says of the call.
        (
            [rule(1, "allow", "replicas = 6", tool="scale_service"), rule(2, "deny", effect="destructive")],
            "rule-2",
        ),
        # The more specific rule wins, also when it is laxer.
        ([rule(1, "ask", effect="destructive"), rule(2, "allow", tool="scale_service")], "rule-2"),
        (
            [
                rule(1, "allow", "replicas <= 6", tool="scale_service"),
                rule(2, "ask", "replicas = 6", tool="scale_service"),
            ],
            "rule-2",
        ),
        (
            [rule(1, "ask", tool="scale_service"), rule(2, "allow", "replicas > 2", effect="destructive")],
            "rule-1",
        ),
        # Equally specific: the stricter one, then the older one.
        ([rule(1, "allow", tool="scale_service"), rule(2, "ask", tool="scale_service")], "rule-2"),
        (
            [rule(1, "ask", tool="scale_service"), rule(2, "ask", tool="scale_service", ask=Ask(quorum=2))],
            "rule-2",
        ),
        ([rule(2, "allow", tool="scale_service"), rule(1, "allow", tool="scale_service")], "rule-1"),
        # A grant answers a question, not a denial, and is not spent on what may run anyway.
        (
            [rule(1, "ask", "replicas = 6", tool="scale_service"), rule(2, "grant", tool="scale_service")],
            "rule-2",
        ),
        (
            [rule(1, "deny", effect="destructive"), rule(2, "grant", "replicas = 6", tool="scale_service")],
            "rule-1",
        ),
        (
            [rule(1, "allow", effect="destructive"), rule(2, "grant", "replicas = 6", tool="scale_service")],
            "rule-1",
        ),
    ],
)
def test_who_wins(rules: list[StoredRule], winner: str) -> None:
    assert decide(*rules).rule == decide(*reversed(rules)).rule == winner


def test_nothing_that_people_write_allows_what_the_code_denies() -> None:
    everything = [rule(1, "allow", effect="destructive"), rule(2, "grant", tool="scale_service")]
    assert decide(*everything, arguments=ARGUMENTS | {"replicas": 0}).rule == "never-scale-to-zero"


def test_reads_can_be_denied_and_are_never_asked_about() -> None:
    assert decide(rule(1, "ask", tool="search_logs"), name="search_logs").kind == "allow"
    assert decide(rule(1, "deny", tool="search_logs"), name="search_logs").kind == "deny"


@tool(effect="write", describe=lambda arguments: "Drain")
def drain(
    context: ToolContext, *, service_name: str, mode: str = "hard", force: bool | None = None
) -> Result:
    """Drain a service."""
    return Result("done")


def test_a_rule_is_not_avoided_by_leaving_an_argument_to_its_default() -> None:
    def kind(*rules: StoredRule) -> str:
        return policy.decide(drain, {"service_name": "api"}, "incident", "production", Policy(rules)).kind

    assert kind(rule(1, "deny", 'mode = "hard"')) == "deny"
    assert kind(rule(1, "deny", "force = null")) == "deny"
    assert kind(rule(1, "deny", 'mode = "soft"')) == "allow"


CONDITIONS = st.sampled_from(["", "replicas = 6", "replicas <= 6", "replicas > 6", 'service_name in ["api"]'])
RULES = st.builds(
    lambda key, kind, text, tool, effect, quorum: rule(
        key, kind, text, tool=tool, effect=effect, ask=Ask(quorum=quorum)
    ),
    key=st.integers(1, 50),
    kind=st.sampled_from(["allow", "ask", "deny", "grant"]),
    text=CONDITIONS,
    tool=st.sampled_from(["", "scale_service", "revert_deployment"]),
    effect=st.sampled_from(["", "destructive", "read"]),
    quorum=st.integers(1, 3),
)


@settings(deadline=None)
@given(st.lists(RULES, max_size=6), st.integers(-1, 9), st.sampled_from(sorted(TOOLS)), st.randoms())
def test_a_denial_always_wins_and_the_order_of_rules_is_nothing(
    rules: list[StoredRule], replicas: int, name: str, chance: Any
) -> None:
    arguments = ARGUMENTS | {"replicas": replicas}
    called = TOOLS[name]
    verdict = decide(*rules, arguments=arguments, name=name)
    matching = [one for one in rules if not one.why_not(called, arguments, "incident", "production")]
    denied_in_code = policy.of_code(called, arguments, "incident", "production").kind == "deny"
    assert (verdict.kind == "deny") == (denied_in_code or any(one.kind == "deny" for one in matching))
    if verdict.kind == "allow" and called.effect == "destructive":
        assert verdict.source in {"rule", "grant"}, (
            "the code asks about it, so somebody has to have allowed it"
        )
    shuffled = list(rules)
    chance.shuffle(shuffled)
    again = decide(*shuffled, arguments=arguments, name=name)
    assert (again.kind, again.ask) == (verdict.kind, verdict.ask)


# ------------------------------------------------------------ writing rules


def test_only_who_may_change_rules_does(operator: User, owner: User) -> None:
    with pytest.raises(actions.MayNotChangePolicy, match="permission “policy”"):
        actions.draft_rule(wanted(), why="x", by=operator)
    made = in_force(owner)
    for attempt in (actions.disable_rule, actions.discard_draft):
        with pytest.raises(actions.MayNotChangePolicy):
            attempt(made.pk, why="x", by=operator)
    with pytest.raises(actions.MayNotChangePolicy):
        actions.backtest_rule(made.pk, days=1, by=operator)
    assert policy_in_force().rules


def test_every_problem_of_a_form_is_said_at_its_field(owner: User) -> None:
    bad = wanted(name="Bad name", reason=" ", tool="no_tool", conditions="replicas ~ 3")
    with pytest.raises(actions.InvalidRule) as refused:
        actions.draft_rule(bad, why="", by=owner)
    assert refused.value.problems.keys() == {"name", "reason", "tool", "conditions", "why"}
    ask = wanted(
        kind="ask", quorum="0", roles=["Nobody"], decide_within_seconds="3 weeks", tool="search_logs"
    )
    with pytest.raises(actions.InvalidRule) as refused:
        actions.draft_rule(ask, why="x", by=owner)
    problems = refused.value.problems
    assert problems.keys() == {"quorum", "roles", "decide_within_seconds", "tool", "conditions"}
    assert "no group Nobody" in problems["roles"] and "about a read" in problems["tool"]
    assert not PolicyRule.objects.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("replcas <= 6", "Did you mean replicas"),
        ('replicas = "6"', "can never hold"),
        ('expected_effect.comparison = "nearly"', "is one of"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(owner: User, text: str, says: str) -> None:
    with pytest.raises(actions.InvalidRule, match=says):
        actions.draft_rule(wanted(conditions=text), why="x", by=owner)


def test_each_change_is_a_version_with_who_and_why_and_none_is_overwritten(owner: User) -> None:
    made = in_force(owner)
    again = actions.draft_rule(wanted(conditions="replicas <= 4"), why="Narrower.", by=owner, pk=made.pk)
    assert again.active is not None and "6" in again.active.content, "what is enabled holds until the next is"
    actions.discard_draft(made.pk, why="Not needed.", by=owner)
    actions.disable_rule(made.pk, why="It was a trial.", by=owner)
    told = list(made.changes.order_by("number").values_list("number", "what", "why", "by__username"))
    assert [row[1] for row in told] == ["drafted", "enabled", "drafted", "discarded", "disabled"]
    assert [row[0] for row in told] == [1, 2, 3, 4, 5]
    assert all(row[2] and row[3] == "petra" for row in told)
    change = PolicyChange.objects.first()
    assert change is not None
    with pytest.raises(ValueError, match="never changed"):
        change.save()
    with pytest.raises(ValueError, match="never changed"):
        change.delete()
    assert not policy_in_force().rules
    assert policy_in_force().version == policy.CODE_ONLY.version


def test_the_policy_has_a_version_that_changes_with_what_is_in_force_alone(owner: User) -> None:
    before = policy_in_force().version
    made = actions.draft_rule(wanted(kind="deny"), why="x", by=owner)
    assert policy_in_force().version == before
    assert made.draft is not None
    actions.enable_rule(made.pk, draft=made.draft.pk, why="x", by=owner)
    assert policy_in_force().version != before
    actions.disable_rule(made.pk, why="x", by=owner)
    assert policy_in_force().version == before


def test_a_draft_that_was_changed_meanwhile_is_not_enabled(owner: User) -> None:
    made = actions.draft_rule(wanted(kind="deny"), why="x", by=owner)
    assert made.draft is not None
    seen = made.draft.pk
    actions.draft_rule(wanted(kind="deny", conditions=""), why="All of it.", by=owner, pk=made.pk)
    with pytest.raises(actions.ActionError, match="changed since you opened"):
        actions.enable_rule(made.pk, draft=seen, why="x", by=owner)


# ------------------------------------------------------------ the back-test


def a_decision(owner: User, verdict: str, replicas: int, reason: str = "") -> Approval:
    """Somebody decided on scaling to so many replicas."""
    lease, step = a_proposed_call(ARGUMENTS | {"replicas": replicas})
    assert authorize(lease, step).status == StepStatus.WAITING
    approval = Approval.objects.get(step=step)
    return actions.decide(
        approval_id=approval.pk,
        voter=owner,
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        revision=1,
        digest=approval.digest,
    )


def test_what_lets_calls_run_is_tried_on_what_people_decided_first(owner: User) -> None:
    yes, no = a_decision(owner, "approve", 6), a_decision(owner, "reject", 5, "Not during the sale.")
    a_decision(owner, "reject", 8)
    made = actions.draft_rule(wanted(), why="x", by=owner)
    assert made.draft is not None
    with pytest.raises(actions.NeedsBacktest, match="back-tested first"):
        actions.enable_rule(made.pk, draft=made.draft.pk, why="x", by=owner)
    found = actions.backtest_rule(made.pk, days=30, by=owner)
    assert (found.looked_at, found.let_through, found.overridden) == (3, 2, 1)
    assert json.loads(found.found) == {
        "ended": {"approved": 1, "rejected": 1},
        "against": [no.pk],
        "others": [yes.pk],
    }
    with pytest.raises(actions.NeedsBacktest, match="1 call that a person rejected"):
        actions.enable_rule(made.pk, draft=made.draft.pk, backtest=found.pk, why="x", by=owner)
    narrower = actions.draft_rule(wanted(conditions="replicas = 6"), why="Narrow it.", by=owner, pk=made.pk)
    assert narrower.draft is not None
    with pytest.raises(actions.NeedsBacktest, match="exactly as it is drafted"):
        actions.enable_rule(
            made.pk, draft=narrower.draft.pk, backtest=found.pk, why="x", by=owner, accepts=True
        )
    found = actions.backtest_rule(made.pk, days=30, by=owner)
    assert (found.let_through, found.overridden) == (1, 0)
    on = actions.enable_rule(made.pk, draft=narrower.draft.pk, backtest=found.pk, why="x", by=owner)
    assert on.active is not None and on.active.backtest == found


def test_a_back_test_is_about_one_rule_and_one_day(owner: User) -> None:
    first = actions.draft_rule(wanted(), why="x", by=owner)
    second = actions.draft_rule(wanted(name="other"), why="x", by=owner)
    found = actions.backtest_rule(first.pk, days=30, by=owner)
    assert second.draft is not None and first.draft is not None
    with pytest.raises(actions.NeedsBacktest):
        actions.enable_rule(second.pk, draft=second.draft.pk, backtest=found.pk, why="x", by=owner)
    type(found).objects.filter(pk=found.pk).update(at=timezone.now() - timedelta(hours=25))
    with pytest.raises(actions.NeedsBacktest, match="older than a day"):
        actions.enable_rule(first.pk, draft=first.draft.pk, backtest=found.pk, why="x", by=owner)


# ------------------------------------------------------------ what runs


def test_a_rule_lets_a_call_run_that_the_code_would_ask_about(owner: User) -> None:
    made = in_force(owner)
    lease, step = a_proposed_call()
    run_calls(lease)
    step.refresh_from_db()
    assert step.begun_at is not None and step.status in {StepStatus.SUCCEEDED, StepStatus.FAILED}
    assert not Approval.objects.exists()
    assert made.active is not None
    for kind in ("call.allowed", "call.started"):
        data = the_event(step.run_id, kind)
        assert (data["rule"], data["source"], data["rule_change"]) == (
            "small-scaling",
            "rule",
            made.active.pk,
        )
        assert data["policy"] == policy_in_force().version
    assert contradictions(Run.objects.get()) == []


def test_a_rule_denies_a_call_and_the_agent_is_told_which(owner: User) -> None:
    in_force(owner, name="no-scaling", kind="deny", reason="The sale is on.", conditions="")
    lease, step = a_proposed_call()
    step = authorize(lease, step)
    assert (step.status, step.error) == (StepStatus.REFUSED, "The sale is on. It did not run.")
    assert the_event(step.run_id, "call.refused")["rule"] == "no-scaling"


def test_a_read_that_a_rule_denies_does_not_run(owner: User) -> None:
    denied = {"kind": "deny", "tool": "search_logs", "reason": "The logs hold customer data."}
    made = in_force(owner, name="no-logs", conditions='service = "api"', **denied)
    lease = a_lease(a_run())
    first, second = a_turn(
        lease, ("search_logs", "read", {"query": "x", "service": "api"}), ("get_metrics", "read", {})
    )
    run_calls(lease)
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, first.error_kind) == (StepStatus.REFUSED, "denied")
    assert first.error == "The logs hold customer data. It did not run."
    assert second.error_kind == "invalid_argument", "it was let through to its tool"
    assert made.active is not None
    assert the_event(first.run_id, "call.refused")["rule_change"] == made.active.pk


def test_a_rule_that_is_switched_off_before_the_start_allows_nothing(owner: User) -> None:
    made = in_force(owner)
    lease, step = a_proposed_call()
    assert authorize(lease, step).status == StepStatus.READY
    actions.disable_rule(made.pk, why="Stop.", by=owner)
    assert begin(lease, step).status == StepStatus.PROPOSED
    assert authorize(lease, step).status == StepStatus.WAITING
    assert contradictions(Run.objects.get()) == []


def test_a_question_says_whom_it_is_for_and_takes_no_other_vote(owner: User, operator: User) -> None:
    on_call, _ = Group.objects.get_or_create(name="On-call")
    asked = {"kind": "ask", "quorum": "2", "roles": ["On-call"], "cooling_off_seconds": "30 s"}
    made = in_force(owner, name="two-of-on-call", **asked)
    lease, step = a_proposed_call(user=operator)
    assert authorize(lease, step).status == StepStatus.WAITING
    approval = Approval.objects.get(step=step)
    assert made.active is not None
    assert (approval.quorum, approval.roles, approval.self_approval) == (2, ["On-call"], False)
    assert (approval.cooling_off_seconds, approval.rule_change) == (30, made.active.pk)
    assert approval.policy_version == policy_in_force().version

    def vote(person: User) -> Approval:
        return actions.decide(
            approval_id=approval.pk, voter=person, verdict="approve", revision=1, digest=approval.digest
        )

    with pytest.raises(actions.MayNotDecide, match="leaves this to On-call, and petra is in none"):
        vote(owner)
    root = User.objects.create_superuser("root")
    with pytest.raises(actions.MayNotDecide, match="root is in none"):
        vote(root)
    operator.groups.add(on_call)
    with pytest.raises(actions.MayNotDecide, match="olga started this run"):
        vote(operator)
    owner.groups.add(on_call)
    vote(owner)
    assert the_event(step.run_id, "approval.vote")["groups"] == ["On-call"]
    with pytest.raises(actions.AlreadyDecided, match="You have voted"):
        vote(owner)
    dana = _user("dana", "decide")
    dana.groups.add(on_call)
    assert vote(dana).state == ApprovalState.APPROVED


# ------------------------------------------------------------ rules that change meanwhile


def an_approved_call(owner: User) -> tuple[Lease, Step, Approval]:
    lease, step = a_proposed_call()
    authorize(lease, step)
    approval = Approval.objects.get(step=step)
    actions.decide(
        approval_id=approval.pk, voter=owner, verdict="approve", revision=1, digest=approval.digest
    )
    return lease, step, approval


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "deny", "reason": "The sale is on."}, "The sale is on"),
        ({"kind": "ask", "quorum": "2", "self_approval": True}, "asks for 2 people now, not 1"),
        ({"kind": "ask", "self_approval": False}, "started the run may not decide any more"),
    ],
)
def test_a_decision_does_not_hold_when_the_rules_ask_for_more_by_the_start(
    owner: User, change: dict[str, Any], says: str
) -> None:
    lease, step, approval = an_approved_call(owner)
    in_force(owner, name="stricter", conditions="", **change)
    step = begin(lease, step)
    approval.refresh_from_db()
    assert (step.status, approval.state) == (StepStatus.REFUSED, ApprovalState.INVALIDATED)
    assert says in step.error and "The rules changed" in step.error and "did not run" in step.error
    assert says in the_event(step.run_id, "approval.invalidated")["reason"]
    assert contradictions(Run.objects.get()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "deny", "tool": "revert_deployment", "conditions": ""},
        {"kind": "deny", "conditions": "replicas > 6"},
        {"kind": "ask", "self_approval": True, "conditions": ""},
        {"kind": "allow"},
    ],
)
def test_a_decision_holds_when_other_rules_change(owner: User, change: dict[str, Any]) -> None:
    lease, step, approval = an_approved_call(owner)
    in_force(owner, name="unrelated", **change)
    assert policy_in_force().version != approval.policy_version
    assert begin(lease, step).status == StepStatus.EXECUTING


def test_a_decision_does_not_hold_when_whoever_made_it_is_gone(owner: User) -> None:
    lease, step, approval = an_approved_call(owner)
    User.objects.filter(pk=owner.pk).update(is_active=False)
    step = begin(lease, step)
    approval.refresh_from_db()
    assert (step.status, approval.state) == (StepStatus.REFUSED, ApprovalState.INVALIDATED)
    assert "petra, who approved it, was closed since" in step.error


def test_a_question_that_waits_is_withdrawn_as_soon_as_more_is_asked(owner: User) -> None:
    lease, step = a_proposed_call()
    authorize(lease, step)
    actions.park(lease, until=None, reason="approval", explanation="A person has to decide.")
    in_force(owner, name="stricter", kind="ask", quorum="2", self_approval=True, conditions="replicas = 6")
    approval = Approval.objects.get(step=step)
    step.refresh_from_db()
    assert (approval.state, step.status) == (ApprovalState.INVALIDATED, StepStatus.REFUSED)
    assert "asks for 2 people now, not 1" in step.error and "nobody refused it" in step.error
    assert Run.objects.get(pk=step.run_id).status == "queued"
    assert contradictions(Run.objects.get(pk=step.run_id)) == []


# ------------------------------------------------------------ grants


def test_a_grant_is_used_once_for_each_start_and_then_people_are_asked(owner: User) -> None:
    grant = in_force(owner, name="", kind="grant", uses="2", seconds="1 h")
    for number in (1, 2):
        lease, step = a_proposed_call()
        assert authorize(lease, step).status == StepStatus.READY
        assert begin(lease, step).status == StepStatus.EXECUTING
        used = the_event(step.run_id, "grant.used")
        assert (used["grant"], used["number"], used["uses"]) == (grant.pk, number, 2)
        assert contradictions(Run.objects.get(pk=step.run_id)) == []
    lease, step = a_proposed_call()
    assert authorize(lease, step).status == StepStatus.WAITING
    grant.refresh_from_db()
    assert (grant.used, GrantUse.objects.count()) == (2, 2)


@pytest.mark.parametrize("how", ["revoked", "expired", "used up"])
def test_a_grant_that_ended_before_the_start_starts_nothing(owner: User, how: str) -> None:
    grant = in_force(owner, name="", kind="grant")
    lease, step = a_proposed_call()
    assert authorize(lease, step).status == StepStatus.READY
    if how == "revoked":
        actions.disable_rule(grant.pk, why="Enough.", by=owner)
    elif how == "expired":
        PolicyRule.objects.update(expires_at=timezone.now() - timedelta(milliseconds=5))
    else:
        PolicyRule.objects.update(used=F("uses"))
    assert begin(lease, step).status == StepStatus.PROPOSED
    assert authorize(lease, step).status == StepStatus.WAITING
    assert not GrantUse.objects.exists()


def test_a_call_that_is_started_again_needs_no_other_use(owner: User) -> None:
    grant = in_force(owner, name="", kind="grant", uses="1")
    lease, step = a_proposed_call()
    authorize(lease, step)
    begin(lease, step)
    actions.recover_call(lease, step.seq, repeatable=True)
    assert begin(lease, step).status == StepStatus.EXECUTING
    grant.refresh_from_db()
    assert grant.used == 1
    actions.recover_call(lease, step.seq, repeatable=True)
    actions.disable_rule(grant.pk, why="Stop.", by=owner)
    assert begin(lease, step).status == StepStatus.UNKNOWN, "its first start may have done something"


def test_a_denial_wins_over_a_grant(owner: User) -> None:
    in_force(owner, name="", kind="grant")
    lease, step = a_proposed_call()
    assert authorize(lease, step).status == StepStatus.READY
    in_force(owner, name="no-scaling", kind="deny", reason="The sale is on.", conditions="")
    step = begin(lease, step)
    assert step.status == StepStatus.REFUSED and "The sale is on." in step.error
    assert not GrantUse.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_workers_side_by_side_never_use_a_grant_more_often_than_it_says() -> None:
    owner = _user("petra", "policy")
    grant = in_force(owner, name="", kind="grant", uses="3")
    ready = []
    for _ in range(8):
        lease, step = a_proposed_call()
        assert authorize(lease, step).status == StepStatus.READY
        ready.append((lease, step))
    together = threading.Barrier(len(ready))

    def start(lease: Lease, step: Step) -> None:
        together.wait()
        try:
            begin(lease, step)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=start, args=pair) for pair in ready]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(Step.objects.filter(name="scale_service").values_list("status", flat=True))
    assert statuses == ["executing"] * 3 + ["proposed"] * 5
    grant.refresh_from_db()
    assert grant.used == 3
    assert list(GrantUse.objects.values_list("number", flat=True)) == [1, 2, 3]
    assert Event.objects.filter(kind="grant.used").count() == 3


# ------------------------------------------------------------ the record


def laxer(rule: PolicyRule) -> str:
    """What somebody would write there to let more through."""
    assert rule.active is not None
    return json.dumps([[rule.pk, rule.active.pk, rule.name, rule.active.content.replace("6", "600")]])


TAMPERED: list[tuple[str, Callable[[PolicyRule], object]]] = [
    ("was changed: it does not give its hash", lambda rule: PolicyChange.objects.update(why="Another.")),
    ("one is missing", lambda rule: PolicyChange.objects.filter(number=1)._raw_delete("default")),
    ("does not give the digest", lambda rule: PolicyChange.objects.update(digest="0" * 64)),
    ("is not in force as its history says", lambda rule: PolicyRule.objects.update(active=None)),
    ("counts 2 uses, there are 1", lambda rule: PolicyRule.objects.update(used=2)),
    ("do not give their digest", lambda rule: PolicyHead.objects.update(digest="0" * 64)),
    ("decides otherwise", lambda rule: PolicyHead.objects.update(rules=laxer(rule))),
]


@pytest.mark.parametrize(("says", "tamper"), TAMPERED)
def test_rules_that_were_changed_by_hand_are_found(
    owner: User, says: str, tamper: Callable[[PolicyRule], object], capsys: pytest.CaptureFixture[str]
) -> None:
    grant = in_force(owner, name="", kind="grant")
    lease, step = a_proposed_call()
    authorize(lease, step)
    begin(lease, step)
    call_command("verifyaudit")
    assert "2 changes of rules checked, head " in capsys.readouterr().out
    PolicyRule.objects.update(draft=None)
    tamper(grant)
    with pytest.raises(SystemExit):
        call_command("verifyaudit")
    assert says in capsys.readouterr().out
