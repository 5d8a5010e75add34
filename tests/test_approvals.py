"""A gated call runs only after a recorded decision of a person on exactly the bytes that run."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone

from runs import actions
from runs.models import Approval, ApprovalState, Run, RunStatus, Step, StepStatus, Vote
from tests.factories import a_lease, a_turn, a_waiting_call


def decide(approval: Approval, voter: User, verdict: str = "approve", reason: str = "") -> Approval:
    return actions.decide(
        approval_id=approval.pk,
        voter=voter,
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        revision=approval.revision,
        digest=approval.digest,
    )


def start(lease: actions.Lease, step: Step, version: str = "") -> str | None:
    return actions.start_call(lease, step.seq, tool_version=version or step.tool_version)


def test_it_waits_without_a_worker_until_somebody_approves(operator: User) -> None:
    _, step, approval = a_waiting_call()
    run = Run.objects.get()
    assert (run.status, run.lease_owner, run.waiting_since is not None) == (RunStatus.WAITING, "", True)
    decide(approval, operator)
    run.refresh_from_db()
    step.refresh_from_db()
    assert (run.status, step.status) == (RunStatus.QUEUED, StepStatus.READY)
    assert run.waited_seconds > 0
    lease = a_lease(run, "worker-2")
    assert start(lease, step) == '{"deployment_id":"dep_0412"}'
    approval.refresh_from_db()
    assert approval.redeemed_at is not None


def test_it_tells_the_model_who_refused_and_why_and_never_runs(operator: User) -> None:
    _, step, approval = a_waiting_call()
    decide(approval, operator, "reject", "Not during the sale.")
    step.refresh_from_db()
    assert step.status == StepStatus.REFUSED and step.is_error
    error = json.loads(step.result)["error"]
    assert error["kind"] == "rejected"
    assert "olga" in error["message"] and "Not during the sale." in error["message"]
    with pytest.raises(ValueError, match="refused"):
        start(a_lease(Run.objects.get()), step)


def test_it_refuses_by_itself_after_the_deadline(operator: User) -> None:
    _, step, approval = a_waiting_call(decide_within_seconds=0)
    with pytest.raises(actions.ApprovalExpired, match="deadline has passed"):
        decide(approval, operator)
    step.refresh_from_db()
    approval.refresh_from_db()
    assert (step.status, approval.state) == (StepStatus.REFUSED, ApprovalState.EXPIRED)
    assert "Nobody refused it" in step.result
    assert not Vote.objects.exists()
    assert Run.objects.get().status == RunStatus.QUEUED


def test_it_sweeps_deadlines_nobody_looks_at(db: None) -> None:
    _, _, approval = a_waiting_call(decide_within_seconds=60)
    assert actions.expire_approvals(timezone.now()) == 0
    Approval.objects.filter(pk=approval.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert actions.expire_approvals(timezone.now()) == 1
    assert actions.expire_approvals(timezone.now()) == 0


def test_it_tells_the_second_decider_who_was_first(operator: User, second_operator: User) -> None:
    _, _, approval = a_waiting_call()
    decide(approval, operator, "reject")
    with pytest.raises(actions.AlreadyDecided, match=r"Already rejected by olga at \d\d:"):
        decide(approval, second_operator)
    assert Vote.objects.count() == 1


def test_it_takes_no_vote_on_other_bytes_than_those_that_wait(operator: User) -> None:
    _, _, approval = a_waiting_call()
    approval.digest = "0" * 64
    with pytest.raises(actions.DigestMismatch):
        decide(approval, operator)
    assert not Vote.objects.exists()


def test_it_takes_no_vote_of_a_viewer(viewer: User) -> None:
    _, _, approval = a_waiting_call()
    with pytest.raises(actions.MayNotDecide, match="vera"):
        decide(approval, viewer)


def test_it_takes_no_third_kind_of_verdict(operator: User) -> None:
    _, _, approval = a_waiting_call()
    with pytest.raises(actions.ActionError, match="approve or reject"):
        decide(approval, operator, "maybe")


def test_it_needs_as_many_people_as_the_rule_says(operator: User, second_operator: User) -> None:
    _, step, approval = a_waiting_call(quorum=2)
    decide(approval, operator)
    with pytest.raises(actions.AlreadyDecided, match="voted on this already"):
        decide(approval, operator)
    step.refresh_from_db()
    assert step.status == StepStatus.WAITING
    decide(approval, second_operator)
    step.refresh_from_db()
    assert step.status == StepStatus.READY


@pytest.mark.parametrize(
    ("tampered", "kind"),
    [
        ({"arguments": '{"deployment_id":"dep_0001"}'}, "invalidated"),
        ({"execute_by": timezone.now() - timedelta(seconds=1)}, "expired"),
        ({"state": ApprovalState.REJECTED}, "denied"),
        ({"redeemed_at": timezone.now()}, "denied"),
    ],
)
def test_it_does_not_start_when_the_approval_does_not_hold(
    operator: User, tampered: dict[str, object], kind: str
) -> None:
    _, step, approval = a_waiting_call()
    decide(approval, operator)
    Approval.objects.filter(pk=approval.pk).update(**tampered)
    assert start(a_lease(Run.objects.get()), step) is None
    step.refresh_from_db()
    assert (step.status, step.error_kind) == (StepStatus.REFUSED, kind)
    assert "did not run" in step.result


def test_it_does_not_run_another_version_of_the_tool_than_the_one_approved(operator: User) -> None:
    _, step, approval = a_waiting_call()
    decide(approval, operator)
    assert start(a_lease(Run.objects.get()), step, "v2") is None
    step.refresh_from_db()
    approval.refresh_from_db()
    assert (step.status, approval.state) == (StepStatus.REFUSED, ApprovalState.INVALIDATED)


def test_a_start_that_was_lost_is_repeated_a_few_times_and_only_before_the_deadline(operator: User) -> None:
    _, step, approval = a_waiting_call()
    decide(approval, operator)
    lease = a_lease(Run.objects.get())
    for _ in range(2):
        assert start(lease, step)
        actions.recover_call(lease, step.seq, repeatable=True)
    Approval.objects.filter(pk=approval.pk).update(execute_by=timezone.now() - timedelta(seconds=1))
    assert start(lease, step) is None
    step.refresh_from_db()
    assert step.status == StepStatus.UNKNOWN and "may or may not" in step.result


def test_a_call_that_kills_its_worker_each_time_is_not_started_for_ever(operator: User) -> None:
    _, step, approval = a_waiting_call()
    decide(approval, operator)
    lease = a_lease(Run.objects.get())
    for _ in range(3):
        assert start(lease, step)
        actions.recover_call(lease, step.seq, repeatable=True)
    step.refresh_from_db()
    assert (step.status, step.attempt) == (StepStatus.UNKNOWN, 3)


def test_a_run_that_ends_withdraws_its_question(operator: User) -> None:
    lease, step, approval = a_waiting_call()
    Run.objects.update(status=RunStatus.RUNNING, lease_owner=lease.owner, waiting_since=None)
    actions.end_run(lease, status=RunStatus.FAILED, reason="internal_error")
    step.refresh_from_db()
    assert (step.status, step.error_kind) == (StepStatus.REFUSED, "cancelled")
    with pytest.raises(actions.AlreadyDecided, match="Already cancelled"):
        decide(approval, operator)


def test_it_never_starts_a_destructive_call_without_an_approval(db: None) -> None:
    _, _, _ = a_waiting_call()
    other = actions.start_run(question="Another", agent="incident", user=None, started_by="alert")
    lease = a_lease(other)
    (step,) = a_turn(lease, ("scale_service", "destructive", {}))
    actions.allow_call(lease, step.seq, rule="a wrong rule")
    assert start(lease, step) is None
    step.refresh_from_db()
    assert step.status == StepStatus.REFUSED


@pytest.mark.django_db(transaction=True)
def test_it_lets_exactly_one_of_many_deciders_win() -> None:
    from tests.conftest import _user

    people = [_user(f"person{n}", "decide") for n in range(12)]
    _, _, approval = a_waiting_call()
    together = threading.Barrier(len(people))
    outcomes: list[str] = []

    def vote(person: User, verdict: str) -> None:
        together.wait()
        try:
            decide(approval, person, verdict)
            outcomes.append("won")
        except actions.AlreadyDecided as error:
            assert error.approval.state in {"approved", "rejected"}
            outcomes.append("lost")
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=vote, args=(person, "approve" if n % 2 else "reject"))
        for n, person in enumerate(people)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 11 + ["won"]
    assert Vote.objects.count() == 1
    approval.refresh_from_db()
    winner = Vote.objects.get()
    assert approval.state == ("approved" if winner.verdict == "approve" else "rejected")
    assert Step.objects.get(pk=approval.step_id).status in {StepStatus.READY, StepStatus.REFUSED}
