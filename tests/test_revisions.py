"""A person changes a call that waits: what is asked next, what runs, and what the agent is told."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from runs import actions
from runs.engine.drive import drive
from runs.models import Approval, ApprovalState, Edit, EditState, Origin, Run, RunStatus, Step, StepStatus
from runs.reading.invariants import contradictions
from runs.reading.receipts import read_receipt, receipt_text
from tests.factories import a_lease, a_run, a_turn, contradictions_beside_deadlines, run_calls
from tests.test_policy_rules import in_force
from tests.toolbox import expected
from tools.models import WorldAction
from tools.registry import TOOLS

pytestmark = pytest.mark.django_db(transaction=True)
SCRIPT = Path(__file__).resolve().parent.parent / "docs/verify_receipt.py"
specification = importlib.util.spec_from_file_location("verify_receipt", SCRIPT)
assert specification and specification.loader
checker = importlib.util.module_from_spec(specification)
specification.loader.exec_module(checker)


def proposal(**changed: Any) -> dict[str, Any]:
    return {
        "service_name": "api",
        "replicas": 8,
        "reason": "It is slow.",
        "expected_effect": expected("latency_p95", "below", 0.5),
    } | changed


def asked(arguments: dict[str, Any] | None = None) -> tuple[Step, Approval]:
    """A call that waits for a person, asked by the engine with a dry run in the estate."""
    run = a_run()
    lease = a_lease(run)
    a_turn(lease, ("scale_service", "destructive", arguments or proposal()), text="More of them would help.")
    run_calls(lease)
    actions.park(lease, until=None, reason="approval", explanation="A person has to decide.")
    step = run.steps.get(name="scale_service")
    return step, newest(step)


def newest(step: Step) -> Approval:
    found = step.approvals.order_by("-revision").first()
    assert found is not None
    return found


def change(approval: Approval, editor: User, **values: Any) -> Edit:
    return actions.ask_edit(
        approval_id=approval.pk,
        editor=editor,
        arguments=json.loads(approval.arguments) | values,
        reason="Six are enough.",
        revision=approval.revision,
        digest=approval.digest,
    )


def decide(approval: Approval, voter: User, verdict: str = "approve") -> Approval:
    return actions.decide(
        approval_id=approval.pk,
        voter=voter,
        verdict=verdict,  # type: ignore[arg-type]
        revision=approval.revision,
        digest=approval.digest,
    )


def goes_on(step: Step, *, to_the_end: bool = False) -> Run:
    """A worker takes the run up, checks the edits, and leaves it there or where a person is needed."""
    lease = a_lease(step.run)
    if to_the_end:
        drive(lease, lambda: False)
    else:
        drive(lease, lambda: not Edit.objects.filter(state=EditState.ASKED).exists())
    step.refresh_from_db()
    run = Run.objects.get(pk=step.run_id)
    assert contradictions_beside_deadlines(run) == []
    return run


def test_what_a_person_changed_is_what_runs_and_the_agent_is_told_both(
    operator: User, second_operator: User
) -> None:
    step, first = asked()
    decide_later = first.pk
    change(first, operator, replicas=6)
    run = goes_on(step)
    first.refresh_from_db()
    second = newest(step)
    assert (first.state, first.ended_by, second.state) == ("superseded", "olga", "pending")
    assert (second.revision, second.origin, second.edited_by) == (2, Origin.EDITED, operator)
    assert second.changed == [{"what": "replicas", "was": "8", "now": "6"}]
    assert "from 4 to 6" in second.headline and second.digest != first.digest
    with pytest.raises(actions.AlreadyDecided, match="Changed by olga"):
        actions.decide(
            approval_id=decide_later,
            voter=second_operator,
            verdict="approve",
            revision=1,
            digest=first.digest,
        )
    decide(second, second_operator)
    run = goes_on(step, to_the_end=True)
    assert step.status == StepStatus.SUCCEEDED and json.loads(step.arguments)["replicas"] == 8
    assert WorldAction.objects.get().details["replicas"] == 6
    told = json.loads(step.result)["changed_by_a_person"]
    assert "olga" in told["note"] and "What ran is this" in told["note"]
    assert told["changes"] == [{"argument": "replicas", "proposed": "8", "changed_to": "6"}]
    assert told["ran"]["replicas"] == 6
    held, wrong = checker.verify(receipt_text(run, step.seq))
    assert not wrong and "1 earlier revisions were over" in "\n".join(held)


def test_a_receipt_that_hides_an_earlier_revision_does_not_hold(operator: User) -> None:
    step, first = asked()
    change(first, operator, replicas=6)
    run = goes_on(step)
    receipt = read_receipt(run, step.seq)
    assert receipt["earlier_revisions"][0]["state"] == "superseded"
    for forged in ([], [receipt["earlier_revisions"][0] | {"digest": "0" * 64}]):
        _, wrong = checker.verify(json.dumps(receipt | {"earlier_revisions": forged}))
        assert "evision" in wrong
    receipt["approval"]["edited_by"] = None
    assert "person who changed it" in checker.verify(json.dumps(receipt))[1]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replicas": "six"}, "replicas must be a whole number"),
        ({"replicas": 8}, "Nothing is different"),
        ({"reason": "x" * 20_000}, "at most 10,000"),
        ({"unheard": 1}, "unheard is not an argument"),
        ({"replicas": float("nan")}, "cannot be written as JSON"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(
    operator: User, values: dict[str, Any], sentence: str
) -> None:
    step, approval = asked()
    with pytest.raises(actions.InvalidEdit, match=sentence):
        change(approval, operator, **values)
    assert not Edit.objects.exists() and newest(step).state == "pending"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"replicas": 0}, "Policy does not allow it"),
        ({"replicas": 99}, "may have 1 to"),
        ({"service_name": "apo"}, "apo"),
    ],
)
def test_a_change_that_the_dry_run_or_policy_refuses_leaves_the_call_as_it_was(
    operator: User, values: dict[str, Any], why: str
) -> None:
    step, approval = asked()
    edit = change(approval, operator, **values)
    run = goes_on(step)
    edit.refresh_from_db()
    assert edit.state == EditState.DENIED and edit.answer
    if "Policy" not in why or values["replicas"] != 0:
        assert why in edit.answer
    assert newest(step) == approval and newest(step).is_open
    lease = actions.claim(run.pk, "worker-2")
    if lease is not None:
        drive(lease, lambda: False)
    assert Run.objects.get(pk=run.pk).status == RunStatus.WAITING


def test_while_a_change_is_checked_nobody_approves_the_old_one_but_anybody_rejects_it(
    operator: User, second_operator: User
) -> None:
    step, approval = asked()
    edit = change(approval, operator, replicas=6)
    with pytest.raises(actions.BeingChanged, match="olga asked to change this call at"):
        decide(approval, second_operator)
    with pytest.raises(actions.BeingChanged, match="olga asked to change this call at"):
        change(approval, second_operator, replicas=5)
    decide(approval, second_operator, "reject")
    edit.refresh_from_db()
    step.refresh_from_db()
    assert (edit.state, step.status) == (EditState.VOID, StepStatus.REFUSED)
    assert contradictions(Run.objects.get()) == []
    goes_on(step, to_the_end=True)
    assert step.approvals.count() == 1


def test_votes_on_the_old_revision_are_void_and_stay_visible(
    client: Client, operator: User, second_operator: User, owner: User
) -> None:
    in_force(owner, kind="ask", name="two-people", conditions="", quorum="2")
    step, approval = asked()
    decide(approval, second_operator)
    change(approval, operator, replicas=6)
    goes_on(step)
    second = newest(step)
    with pytest.raises(actions.MayNotDecide, match="they have to be others"):
        decide(second, operator)
    client.force_login(operator)
    page = client.get(f"/approvals/{second.pk}/").text
    assert "dana approved it, void" in page and "Changed by olga" in page
    assert "they have to be others" in page and "data-approve" not in page
    decide(second, second_operator)
    assert newest(step).is_open
    page = client.get(f"/approvals/{approval.pk}/").text
    assert page.count("olga changed this call") == 1 and f"/approvals/{second.pk}/" in page


def test_one_person_may_change_and_approve_where_the_rule_asks_for_one(operator: User) -> None:
    step, approval = asked()
    change(approval, operator, replicas=6)
    goes_on(step)
    decide(newest(step), operator)
    goes_on(step, to_the_end=True)
    assert step.status == StepStatus.SUCCEEDED


def test_a_rejected_change_is_told_as_what_it_was(operator: User, second_operator: User) -> None:
    step, approval = asked()
    change(approval, operator, replicas=6)
    goes_on(step)
    decide(newest(step), second_operator, "reject")
    step.refresh_from_db()
    said = json.loads(step.result)
    assert said["error"]["kind"] == "rejected" and "dana" in said["summary"]
    assert "What was decided on is this" in said["changed_by_a_person"]["note"]
    assert contradictions(Run.objects.get()) == []


def test_the_deadline_and_the_end_of_the_run_void_a_change(operator: User) -> None:
    step, approval = asked()
    edit = change(approval, operator, replicas=6)
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    goes_on(step, to_the_end=True)
    edit.refresh_from_db()
    assert (edit.state, newest(step).state) == (EditState.VOID, "expired")
    step, approval = asked()
    edit = change(approval, operator, replicas=6)
    actions.cancel_run(run_id=step.run_id, actor="olga")
    edit.refresh_from_db()
    assert edit.state == EditState.VOID
    assert contradictions(Run.objects.get(pk=step.run_id)) == []


# ------------------------------------------------------------------ the form


def test_the_form_shows_the_arguments_and_keeps_what_was_typed(
    client: Client, operator: User, viewer: User
) -> None:
    _, approval = asked()
    client.force_login(operator)
    address = f"/approvals/{approval.pk}/edit/"
    page = client.get(address).text
    assert 'name="arg.replicas" value="8"' in page and 'name="arg.expected_effect.value"' in page
    sent = {
        "revision": "1",
        "digest": approval.digest,
        "arg.service_name": "api",
        "arg.replicas": "six",
        "arg.reason": "It is slow.",
        "arg.expected_effect.service_name": "api",
        "arg.expected_effect.metric": "latency_p95",
        "arg.expected_effect.comparison": "below",
        "arg.expected_effect.value": "0.5",
        "arg.expected_effect.within_seconds": "300",
        "reason": "Six are enough.",
    }
    refused = client.post(address, sent)
    assert refused.status_code == 422 and "Give a whole number." in refused.text
    assert 'value="six"' in refused.text and "Six are enough." in refused.text
    assert client.post(address, sent | {"arg.replicas": "[" * 100_000}).status_code == 422
    assert client.post(address, sent | {"arg.replicas": "8"}).status_code == 422
    assert client.post(address, sent | {"arg.replicas": "6", "digest": "0" * 64}).status_code == 409
    assert (
        client.post(address, sent | {"arg.replicas": "6", "reason": "Six\0 are enough."}).status_code == 302
    )
    edit = Edit.objects.get()
    assert edit.reason == "Six are enough."
    assert json.loads(edit.arguments) == proposal(replicas=6)
    assert "is being made" in client.get(f"/approvals/{approval.pk}/").text
    late = client.post(address, sent | {"arg.replicas": "5"})
    assert late.status_code == 409 and "olga asked to change" in late.text
    client.force_login(viewer)
    assert client.post(address, sent | {"arg.replicas": "5"}).status_code == 403
    assert client.post(address, sent | {"arg.replicas": "many"}).status_code == 403
    assert 'name="arg.replicas"' not in client.get(address).text


# ------------------------------------------------------------------ taking it back


def take_back(approval: Approval, reviewer: User, reason: str = "Wrong night.") -> Approval:
    return actions.revoke(
        approval_id=approval.pk,
        reviewer=reviewer,
        reason=reason,
        revision=approval.revision,
        digest=approval.digest,
    )


def test_an_approval_is_taken_back_before_its_call_starts(
    client: Client, operator: User, second_operator: User, viewer: User
) -> None:
    step, approval = asked()
    with pytest.raises(actions.ActionError, match="Reject it instead"):
        take_back(approval, operator)
    decide(approval, operator)
    with pytest.raises(actions.MayNotDecide):
        take_back(approval, viewer)
    client.force_login(second_operator)
    assert 'data-action="undo"' in client.get(f"/approvals/{approval.pk}/").text
    done = client.post(
        f"/approvals/{approval.pk}/revoke/",
        {"revision": "1", "digest": approval.digest, "undo_reason": "Wrong night."},
    )
    assert done.status_code == 302
    step.refresh_from_db()
    said = json.loads(step.result)
    assert (step.status, said["error"]["kind"]) == (StepStatus.REFUSED, "revoked")
    assert "dana" in said["summary"] and "Wrong night." in said["summary"]
    with pytest.raises(actions.AlreadyDecided, match="Revoked by dana at"):
        take_back(approval, operator)
    run = goes_on(step, to_the_end=True)
    assert not WorldAction.objects.exists()
    assert not checker.verify(receipt_text(run, step.seq))[1]
    assert f"{second_operator.username} took it back" in client.get("/approvals/history/").text


def test_what_has_started_cannot_be_taken_back(client: Client, operator: User) -> None:
    step, approval = asked()
    decide(approval, operator)
    assert actions.start_call(a_lease(step.run), step.seq, tool_version=step.tool_version)
    with pytest.raises(actions.AlreadyStarted, match="Too late: it started at"):
        take_back(approval, operator)
    client.force_login(operator)
    sent = {"revision": "1", "digest": approval.digest}
    answer = client.post(f"/approvals/{approval.pk}/revoke/", sent)
    assert answer.status_code == 409 and "Too late" in answer.text


# ------------------------------------------------------------------ cooling-off


@pytest.fixture
def irreversible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards of the scaling tool say that it cannot be undone."""
    scaling = TOOLS["scale_service"]
    dry_run = scaling.dry_run
    assert dry_run is not None

    def seen(*arguments: Any, **named: Any) -> dict[str, Any]:
        return dry_run(*arguments, **named) | {"reversible": False}

    monkeypatch.setitem(TOOLS, "scale_service", replace(scaling, dry_run=seen))


@pytest.mark.usefixtures("irreversible")
def test_what_cannot_be_undone_waits_and_every_reviewer_can_undo_it(
    client: Client, operator: User, second_operator: User, settings: Settings
) -> None:
    settings.AGENTOPS_COOLING_OFF_SECONDS = 60
    step, approval = asked()
    approval = decide(approval, operator)
    assert approval.not_before and approval.execute_by
    assert approval.execute_by - approval.not_before == timedelta(seconds=approval.execute_within_seconds)
    run = goes_on(step, to_the_end=True)
    assert (run.status, run.reason, run.retry_at) == (RunStatus.QUEUED, "cooling_off", approval.not_before)
    assert step.status == StepStatus.READY and actions.claim(run.pk, "eager") is None
    client.force_login(second_operator)
    for address in ("/approvals/", f"/approvals/{approval.pk}/", run.get_absolute_url()):
        assert "starts in" in client.get(address).text.lower(), address
    with pytest.raises(ValueError, match="does not start yet"):
        Run.objects.update(retry_at=None)
        actions.start_call(a_lease(run), step.seq, tool_version=step.tool_version)
    Run.objects.update(
        status=RunStatus.QUEUED, lease_owner="", lease_until=None, retry_at=approval.not_before
    )
    Run.objects.update(reason="cooling_off")
    take_back(approval, second_operator)
    run.refresh_from_db()
    assert run.retry_at is None
    goes_on(step, to_the_end=True)
    assert not WorldAction.objects.exists()


@pytest.mark.usefixtures("irreversible")
def test_when_nobody_undoes_it_it_runs_once_the_time_is_over(operator: User, settings: Settings) -> None:
    settings.AGENTOPS_COOLING_OFF_SECONDS = 0.3
    step, approval = asked()
    not_before = decide(approval, operator).not_before
    assert not_before
    goes_on(step, to_the_end=True)
    while (lease := actions.claim(step.run_id, "worker-2")) is None:
        assert timezone.now() < not_before + timedelta(seconds=20)
    drive(lease, lambda: False)
    step.refresh_from_db()
    approval.refresh_from_db()
    assert step.status == StepStatus.SUCCEEDED and WorldAction.objects.count() == 1
    assert approval.redeemed_at and approval.redeemed_at >= not_before


def test_what_can_be_undone_later_starts_at_once(operator: User, settings: Settings) -> None:
    settings.AGENTOPS_COOLING_OFF_SECONDS = 60
    step, approval = asked()
    assert decide(approval, operator).not_before is None
    goes_on(step, to_the_end=True)
    assert step.status == StepStatus.SUCCEEDED


# ------------------------------------------------------------------ drift


def someone_scales(step: Step, replicas: int) -> None:
    """In the world of this run somebody else changes the number of instances."""
    from tools.backends import estate
    from tools.base import ToolContext

    world = step.run.frozen["world"]
    backend = estate.connect(ToolContext("production", world, "by-hand", "ev_99"))
    backend.perform("scale", "api", {"replicas": replicas, "from_replicas": 4}, "by-hand")


def test_what_changed_since_the_approval_is_asked_again_with_what_changed(
    client: Client, operator: User
) -> None:
    step, approval = asked()
    decide(approval, operator)
    someone_scales(step, 5)
    run = goes_on(step, to_the_end=True)
    approval.refresh_from_db()
    again = newest(step)
    assert (approval.state, again.state, again.origin) == ("invalidated", "pending", Origin.DRIFTED)
    assert "replicas of api was 4, is now 5" in approval.ended_why
    assert {"what": "replicas of api", "was": "4", "now": "5"} in again.changed
    assert run.status == RunStatus.WAITING and again.arguments == approval.arguments
    client.force_login(operator)
    assert "Changed since it was approved" in client.get(f"/approvals/{again.pk}/").text
    decide(again, operator)
    run = goes_on(step, to_the_end=True)
    assert step.status == StepStatus.SUCCEEDED and "changed_by_a_person" not in step.result
    assert not checker.verify(receipt_text(run, step.seq))[1]


def test_what_cannot_work_any_more_is_told_to_the_agent_and_nobody_is_asked(operator: User) -> None:
    step, approval = asked(proposal(expected_current_replicas=4))
    decide(approval, operator)
    someone_scales(step, 5)
    goes_on(step, to_the_end=True)
    approval.refresh_from_db()
    assert (approval.state, step.status) == ("invalidated", StepStatus.REFUSED)
    assert "It was approved, but production changed before it started" in step.result
    assert step.error_kind == "stale_precondition" and ApprovalState.PENDING not in set(
        Approval.objects.values_list("state", flat=True)
    )
