"""Rows that somebody forged behind the events: no effect without a recorded decision on exactly its bytes.

The forger writes rows and does not continue the hash chain, or continues it wrongly. Every column of every
row behind a START is forged once, alone and together with what a careful forger would change with it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.utils import IntegrityError
from django.utils import timezone

from runs import actions
from runs.engine.calls import verdict_on
from runs.engine.drive import drive
from runs.models import (
    Approval,
    Event,
    GrantUse,
    PolicyChange,
    PolicyHead,
    PolicyRule,
    Resolution,
    Run,
    Step,
    Vote,
)
from runs.models.in_force import policy_in_force
from runs.models.policy import rule_digest
from tests.factories import a_lease, a_waiting_call
from tests.test_policy_rules import a_proposed_call, authorize, in_force, wanted
from tests.test_revisions import asked, decide
from tools import registry
from tools.models import WorldAction

pytestmark = pytest.mark.django_db(transaction=True)
LONG_AGO = timezone.now() - timedelta(days=1)


def another(field: models.Field[Any, Any], value: Any) -> Any:
    """A value of this column that it does not have, as plausible as it gets."""
    if isinstance(field, models.ForeignKey):
        others = field.related_model._default_manager.exclude(pk=value)  # type: ignore[union-attr]
        return others.values_list("pk", flat=True).first()
    if field.choices:
        return next(one for one, _ in field.flatchoices if one != value)
    if isinstance(field, models.BooleanField):
        return not value
    if isinstance(field, models.DateTimeField):
        return (value or timezone.now()) + timedelta(seconds=7)
    if isinstance(field, models.JSONField):
        return ["sre"] if value == [] else []
    if isinstance(field, models.UUIDField):
        return uuid.uuid4()
    if isinstance(field, models.FloatField | models.IntegerField | models.DecimalField):
        return (value or 0) + 1
    if isinstance(value, str) and value[:1] in "{[" and value:
        loaded = json.loads(value)
        return json.dumps(loaded | {"forged": 1} if isinstance(loaded, dict) else [*loaded, {"forged": 1}])
    return f"forged{value}"[: field.max_length]


def forge(row: models.Model, **values: Any) -> bool:
    """Write these columns around every action; False where the database itself refuses that."""
    try:
        with transaction.atomic():
            type(row)._base_manager.filter(pk=row.pk).update(**values)
    except IntegrityError:
        return False
    return True


def columns(row: models.Model) -> Iterator[tuple[str, Any]]:
    """Each column of this row beside its key, with another value."""
    for field in row._meta.concrete_fields:
        if not field.primary_key:
            yield field.attname, another(field, getattr(row, field.attname))


def starts(step: Step) -> bool:
    """Whether a worker that takes the run up now runs this call; one that has to wait does not."""
    Run.objects.filter(pk=step.run_id).update(
        status="queued", lease_owner="", lease_until=None, retry_at=None
    )
    lease = a_lease(Run.objects.get(pk=step.run_id), "worker-2")
    try:
        return actions.start_call(lease, step.seq, tool_version=step.tool_version) is not None
    except ValueError:
        return False


def waiting(**fields: Any) -> tuple[Step, Approval]:
    _, step, approval = a_waiting_call(**fields)
    return step, approval


def look_approved(step: Step, approval: Approval) -> None:
    """What a forger writes who wants a pending call to run."""
    now = timezone.now()
    soon = now + timedelta(minutes=5)
    forge(approval, state="approved", decided_at=now, execute_by=soon)
    forge(step, status="ready")


def a_vote(approval: Approval, voter: User, **values: Any) -> Vote:
    said = {"revision": approval.revision, "digest": approval.digest, "verdict": "approve"}
    return Vote.objects.create(approval=approval, voter=voter, **(said | values))


def forged_vote_event(approval: Approval, voter: User, kind: str = "approval.vote", **said: Any) -> None:
    """An event that continues the chain by number, and not by hash."""
    run = Run.objects.get(pk=approval.run_id)
    facts = {"approval": approval.pk, "step": approval.step.seq, "voter": voter.pk, "verdict": "approve"}
    facts |= {"digest": approval.digest, "reason": "", "seconds_on_card": None, "self_approval": False}
    Event.objects.create(
        run=run,
        seq=run.last_event + 1,
        kind=kind,
        actor=voter.username,
        data=json.dumps(facts | said),
        previous_hash=run.last_event_hash,
        hash="f" * 64,
    )
    forge(run, last_event=run.last_event + 1, last_event_hash="f" * 64)


def asked_of_anybody(approval: Approval, _: User) -> None:
    forge(approval, quorum=1, roles=[], self_approval=True)


def an_approval_event(approval: Approval, person: User) -> None:
    forged_vote_event(approval, person, kind="approval.approved")


SETS: dict[str, tuple[Callable[[Approval, User], object], ...]] = {
    "only the state": (),
    "a vote without its event": (a_vote,),
    "a vote with an event out of the chain": (a_vote, forged_vote_event),
    "an approval out of the chain": (a_vote, forged_vote_event, an_approval_event),
    "a question that anybody may answer": (asked_of_anybody, a_vote),
}


@pytest.mark.parametrize("name", SETS)
def test_a_pending_call_does_not_run_because_a_row_says_approved(name: str, operator: User) -> None:
    step, approval = waiting()
    look_approved(step, approval)
    for write in SETS[name]:
        write(approval, operator)
    assert not starts(step)
    approval.refresh_from_db()
    step.refresh_from_db()
    assert (approval.state, step.status) == ("invalidated", "refused")
    assert "record of decisions contradicts" in approval.ended_why
    assert Event.objects.filter(run=step.run, kind="approval.contradicted").count() == 1


def test_no_column_makes_a_pending_call_run(operator: User) -> None:
    """Beside the state, each column of the approval, the call and the run, one after the other."""
    for table in (Approval, Step, Run):
        row = table.objects.get(pk=_of(table, *waiting()))
        for name, _ in columns(row):
            step, approval = waiting()
            look_approved(step, approval)
            target = table.objects.get(pk=_of(table, step, approval))
            if name in {"status", "state", "fence", "lease_owner", "lease_until", "run_id", "step_id"}:
                continue  # as the forger left them, or no call of this run any more
            forge(target, **{name: another(target._meta.get_field(name), getattr(target, name))})
            step.refresh_from_db()
            assert not starts(step), f"{table.__name__}.{name}"


def _of(table: type[models.Model], step: Step, approval: Approval) -> Any:
    return {Approval: approval.pk, Step: step.pk, Run: step.run_id}[table]


# What is nothing but a note for people about an end that has not come, or says nothing of the decision;
# `searched` is the headline as a search in the history compares it, and is shown nowhere.
SAYS_NOTHING = {"ended_at", "ended_by", "ended_why", "run_id", "step_id", "searched"}


def test_every_column_of_an_approval_is_what_people_approved(operator: User, second_operator: User) -> None:
    """Approved for real; then one column says something else."""
    step, approval = waiting()
    for name, _ in columns(approval):
        if name in SAYS_NOTHING:
            continue
        step, approval = waiting()
        decide(approval, operator)
        approval.refresh_from_db()
        assert forge(approval, **{name: another(approval._meta.get_field(name), getattr(approval, name))})
        assert not starts(step), name


def test_every_column_of_a_vote_is_what_its_event_says(operator: User, second_operator: User) -> None:
    step, approval = waiting()
    decide(approval, operator)
    for name, _ in columns(approval.votes.get()):
        step, approval = waiting()
        waiting()
        decide(approval, operator)
        vote = approval.votes.get()
        if name != "approval_id":
            assert forge(vote, **{name: another(vote._meta.get_field(name), getattr(vote, name))}), name
        else:
            forge(vote, approval_id=Approval.objects.exclude(pk=approval.pk).latest("pk").pk)
        assert not starts(step), name


def test_what_was_approved_starts_when_nothing_was_forged(operator: User) -> None:
    step, approval = waiting()
    decide(approval, operator)
    assert starts(step)


def test_two_people_are_two_people(operator: User, second_operator: User) -> None:
    step, approval = waiting(quorum=2)
    decide(approval, operator)
    look_approved(step, approval)
    a_vote(approval, second_operator)
    assert not starts(step)


@pytest.mark.parametrize("kind", ["call", "event", "attempt"])
def test_a_call_that_has_run_does_not_run_again(kind: str, operator: User) -> None:
    step, approval = asked()
    decide(approval, operator)
    drive(a_lease(step.run), lambda: False)
    assert WorldAction.objects.count() == 1
    forge(step, status="ready", ended_at=None, result="", **({"attempt": 2} if kind == "attempt" else {}))
    forge(approval, redeemed_at=None, execute_by=timezone.now() + timedelta(minutes=5))
    if kind == "event":
        Event.objects.filter(
            run=step.run, kind__startswith="call.", data__contains=f'"step":{step.seq}'
        ).delete()
    forge(step.run, status="queued", ended_at=None)
    assert not starts(step)


def test_a_rule_that_only_its_row_enables_allows_nothing(owner: User) -> None:
    """A draft that was never enabled, written into the rules in force."""
    rule = actions.draft_rule(wanted(), why="Try it.", by=owner)
    assert rule.draft is not None
    head = PolicyHead.objects.get()
    listed = json.dumps([[rule.pk, rule.draft.pk, rule.name, rule.draft.content]])
    forge(head, rules=listed, digest=_sha256(listed))
    forge(rule, active_id=rule.draft.pk)
    _, step = a_proposed_call()
    lease = a_lease_of(step)
    assert authorize(lease, step).status == "refused"


def a_lease_of(step: Step) -> actions.Lease:
    Run.objects.filter(pk=step.run_id).update(status="queued", lease_owner="", lease_until=None)
    return a_lease(Run.objects.get(pk=step.run_id), "worker-2")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("table", [PolicyChange, PolicyHead])
def test_rules_whose_history_was_changed_let_nothing_run(table: type[models.Model], owner: User) -> None:
    """Every column of the change that enabled a rule, and of what is in force."""
    in_force(owner)
    row = table._default_manager.latest("pk")
    kept = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    for name, value in columns(row):
        if name == "by_id" and value is None:
            value = User.objects.create_user("somebody").pk
        if not forge(row, **{name: value}):
            continue
        policy = policy_in_force()
        assert {rule.kind for rule in policy.rules} == {"deny"}, name
        forge(row, **{name: kept[name]})
    assert {rule.kind for rule in policy_in_force().rules} == {"allow"}


def test_an_allowing_rule_cannot_be_widened_in_its_row(owner: User) -> None:
    rule = in_force(owner)
    assert rule.active is not None
    content = json.dumps(rule.active.values | {"conditions": []})
    forge(rule.active, content=content, digest=rule_digest(rule.name, content))
    listed = json.dumps([[rule.pk, rule.active.pk, rule.name, content]])
    forge(PolicyHead.objects.get(), rules=listed, digest=_sha256(listed))
    assert {one.kind for one in policy_in_force().rules} == {"deny"}


def a_grant(owner: User, **fields: Any) -> PolicyRule:
    return in_force(owner, kind="grant", name="small-steps", uses="1", seconds="1 h", **fields)


@pytest.mark.parametrize("forged", [{"uses": 9}, {"expires_at": timezone.now() + timedelta(days=9)}])
def test_a_grant_gives_no_more_than_was_given(forged: dict[str, Any], owner: User) -> None:
    grant = a_grant(owner)
    forge(grant, **forged)
    lease, step = a_proposed_call()
    step = authorize(lease, step)
    with actions.together(lease):
        assert (
            actions.start_call(lease, step.seq, tool_version=step.tool_version, verdict=verdict_of(step))
            is None
        )


def test_a_use_of_a_grant_is_not_given_back_by_its_rows(owner: User) -> None:
    grant = a_grant(owner)
    lease, step = a_proposed_call()
    authorize(lease, step)
    assert actions.start_call(lease, step.seq, tool_version=step.tool_version, verdict=verdict_of(step))
    GrantUse.objects.all()._raw_delete("default")
    forge(grant, used=0)
    lease, step = a_proposed_call()
    step = authorize(lease, step)
    assert (
        actions.start_call(lease, step.seq, tool_version=step.tool_version, verdict=verdict_of(step)) is None
    )


def may_start(lease: actions.Lease, step: Step) -> bool:
    verdict = verdict_of(step)
    started = actions.start_call(lease, step.seq, tool_version=step.tool_version, verdict=verdict)
    return started is not None


def verdict_of(step: Step) -> Any:
    tool = registry.find(step.name)
    assert tool is not None
    return verdict_on(step.run, step, tool, policy_in_force())


@pytest.mark.parametrize("column", ["arguments", "name", "tool_use_id"])
def test_an_allowed_call_runs_only_as_the_model_proposed_it(column: str, owner: User) -> None:
    in_force(owner)
    lease, step = a_proposed_call()
    step = authorize(lease, step)
    assert step.status == "ready"
    verdict = verdict_of(step)
    changed = {"arguments": step.arguments.replace("6", "5"), "name": "revert_deployment", "tool_use_id": "x"}
    forge(step, **{column: changed[column]})
    step.refresh_from_db()
    lease = a_lease_of(step)
    assert actions.start_call(lease, step.seq, tool_version=step.tool_version, verdict=verdict) is None


@pytest.mark.parametrize("column", ["config", "limits"])
def test_a_run_whose_limits_only_its_row_raises_does_not_go_on(column: str, operator: User) -> None:
    step, approval = asked()
    decide(approval, operator)
    run = Run.objects.get(pk=step.run_id)
    higher = json.loads(run.config)["limits"] | {"cost_usd": "500"}
    values = {"config": json.dumps(json.loads(run.config) | {"limits": higher}), "limits": json.dumps(higher)}
    forge(run, **{column: values[column]})
    drive(a_lease(run), lambda: False)
    run.refresh_from_db()
    assert (run.status, run.reason) == ("failed", "contradicted") and not WorldAction.objects.exists()


def test_limits_that_people_raised_hold(operator: User) -> None:
    step, _ = asked()
    run = Run.objects.get(pk=step.run_id)
    actions.pause_run(run_id=run.pk, actor="olga")
    actions.resume_run(run_id=run.pk, actor="olga", limits={"cost_usd": "5", "steps": "90"})
    assert actions.why_not_its_limits(run.pk) == ""
    actions.cancel_run(run_id=run.pk, actor="olga")
    fork = actions.fork_run(run_id=run.pk, actor="olga", user=operator, step=1, instruction="Look again.")
    assert actions.why_not_its_limits(fork.pk) == ""


@pytest.mark.parametrize("column", ["verdict", "evidence", "by_id"])
def test_the_model_is_told_only_what_a_person_found(
    column: str, operator: User, second_operator: User
) -> None:
    step, approval = asked()
    decide(approval, operator)
    lease = a_lease(step.run)
    actions.start_call(lease, step.seq, tool_version=step.tool_version)
    actions.recover_call(lease, step.seq, repeatable=False)
    actions.resolve_outcome(
        run_id=step.run_id, seq=step.seq, verdict="happened", evidence="I saw it.", by=operator
    )
    resolution = Resolution.objects.get()
    forge(resolution, **{column: another(resolution._meta.get_field(column), getattr(resolution, column))})
    actions.tell_outcomes(lease)
    assert not step.run.steps.filter(kind="note", name__startswith="outcome").exists()
