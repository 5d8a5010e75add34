"""Both state machines under people who act at the same time: whatever they do, exactly one outcome holds.

Real threads with connections of their own, on whichever database the tests run on. What they do and in which
order they are let loose is drawn by hypothesis; who is first is up to the database.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from runs import actions
from runs.actions import Refusal
from runs.engine import looking_again
from runs.models import (
    Approval,
    ApprovalState,
    Edit,
    EditState,
    Event,
    Run,
    RunStatus,
    Step,
    StepStatus,
    Vote,
)
from tests.conftest import _user
from tests.factories import a_question, a_waiting_call, contradictions_beside_deadlines

pytestmark = pytest.mark.django_db(transaction=True)

PENDING = ("approve", "reject", "edit", "open", "deny", "expire", "cancel", "pause")
APPROVED = ("start", "revoke", "drift", "refuse", "cancel", "vote", "hand_back")
# What each of them leaves behind when it was the one that decided.
DECIDES = {"approve": "approved", "reject": "rejected", "expire": "expired", "cancel": "cancelled"}
EXAMPLES = settings(
    max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


@dataclass
class Scene:
    """One call that people act on at the same time, and what came of each act."""

    run: Run
    step: Step
    approval: Approval
    people: list[User]

    def decide(self, voter: User, verdict: str) -> str:
        actions.decide(
            approval_id=self.approval.pk,
            voter=voter,
            verdict=verdict,  # type: ignore[arg-type]
            revision=self.approval.revision,
            digest=self.approval.digest,
        )
        return "done"

    def approve(self, who: User) -> str:
        return self.decide(who, "approve")

    vote = approve

    def reject(self, who: User) -> str:
        return self.decide(who, "reject")

    def edit(self, who: User) -> str:
        actions.ask_edit(
            approval_id=self.approval.pk,
            editor=who,
            arguments={**VALID, "reason": f"{who.username} knows better."},
            revision=self.approval.revision,
            digest=self.approval.digest,
        )
        return "done"

    def open(self, who: User) -> str:
        """What a driver does with an edit whose dry run went well."""
        with Driven(self.run) as lease:
            for edit in actions.unchecked_edits(self.run):
                actions.open_revision(lease, edit, a_question(json.loads(edit.arguments)), summary="It.")
        return "done"

    def deny(self, who: User) -> str:
        with Driven(self.run) as lease:
            for edit in actions.unchecked_edits(self.run):
                actions.deny_edit(lease, edit, "There are not so many.")
        return "done"

    def expire(self, who: User) -> str:
        late = timezone.now() - timedelta(seconds=1)
        Approval.objects.filter(pk=self.approval.pk, state=ApprovalState.PENDING).update(expires_at=late)
        actions.expire_approvals(timezone.now())
        return "done"

    def cancel(self, who: User) -> str:
        actions.cancel_run(run_id=self.run.pk, actor=who.username)
        return "done"

    def pause(self, who: User) -> str:
        actions.pause_run(run_id=self.run.pk, actor=who.username)
        return "done"

    def start(self, who: User) -> str:
        with Driven(self.run) as lease:
            step = Step.objects.get(pk=self.step.pk)
            ran = actions.start_call(lease, step.seq, tool_version=step.tool_version)
        return "started" if ran else "refused"

    def drift(self, who: User) -> str:
        with Driven(self.run) as lease:
            changed = looking_again.drift({"replicas": 4}, {"replicas": 5})
            actions.ask_again(lease, self.step.seq, a_question(VALID), changed)
        return "done"

    def refuse(self, who: User) -> str:
        with Driven(self.run) as lease:
            actions.refuse_call(lease, self.step.seq, Refusal("denied", "Policy changed. It did not run."))
        return "done"

    def hand_back(self, who: User) -> str:
        with Driven(self.run) as lease:
            actions.hand_back(lease)
        return "done"

    def revoke(self, who: User) -> str:
        actions.revoke(
            approval_id=self.approval.pk,
            reviewer=who,
            revision=self.approval.revision,
            digest=self.approval.digest,
        )
        return "done"


class Driven:
    """The lease of a worker that looks for work at the same moment; ActionError when there is none."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> actions.Lease:
        lease = actions.claim(self._run.pk, f"worker-{threading.get_ident()}")
        if lease is None:
            raise actions.LeaseLost("Somebody else drives it, or nothing is to be done.")
        self._lease = lease
        return lease

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                actions.hand_back(self._lease)
            except actions.LeaseLost:
                return


VALID = {
    "deployment_id": "dep_0412",
    "reason": "It leaks.",
    "expected_effect": {
        "service_name": "api",
        "metric": "error_rate",
        "comparison": "below",
        "value": 0.01,
        "within_seconds": 300,
    },
}


def a_scene(acts: int) -> Scene:
    people = [_user(f"person{n}-{Run.objects.count()}", "decide", "start") for n in range(acts)]
    _, step, approval = a_waiting_call()
    return Scene(approval.run, step, approval, people)


def at_once(scene: Scene, acts: list[str]) -> list[tuple[str, str]]:
    """Let all of them loose together; what each did, and `done`, or the kind of its refusal."""
    together = threading.Barrier(len(acts))
    outcomes: list[tuple[str, str]] = []

    def act(name: str, who: User) -> None:
        try:
            together.wait(30)
            outcomes.append((name, _tried(getattr(scene, name), who)))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=act, args=pair) for pair in zip(acts, scene.people, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(acts), "somebody met an error of ours"
    return outcomes


def _tried(act: Callable[[User], str], who: User) -> str:
    try:
        return act(who)
    except actions.AlreadyDecided as lost:
        assert str(lost)[-1] == "." and _is_true(lost)
        return type(lost).__name__
    except actions.ActionError as refused:
        assert str(refused)[-1] == "."
        return type(refused).__name__
    except ValueError as no_transition:  # a driver that came too late: its move does not exist any more
        assert "cannot become" in str(no_transition)
        return "ValueError"


def _is_true(lost: actions.AlreadyDecided) -> bool:
    """Whether the loser was told who won, and when."""
    approval, said = lost.approval, str(lost)
    if isinstance(lost, actions.ApprovalExpired):
        return "deadline" in said or "in time" in said
    if isinstance(lost, actions.BeingChanged):
        return any(one.by.username in said and f"{one.at:%H:%M:%S}" in said for one in approval.edits.all())
    if isinstance(lost, actions.AlreadyStarted):
        return f"{approval.redeemed_at:%H:%M:%S}" in said
    if "is over" in said:
        return approval.run.is_ended or approval.state != "approved"
    if approval.state in {"approved", "rejected"}:
        vote = approval.votes.get()
        return vote.voter.username in said and f"{vote.at:%H:%M:%S}" in said
    ended = approval.ended_at or approval.decided_at
    return (approval.ended_by or approval.state) in said and f"{ended:%H:%M:%S}" in said


def check(scene: Scene, outcomes: list[tuple[str, str]]) -> tuple[Run, Step, list[Approval]]:
    """What holds whatever happened: rows that agree, and at most one terminal decision for each revision."""
    run = Run.objects.get(pk=scene.run.pk)
    assert contradictions_beside_deadlines(run) == [], outcomes
    revisions = list(Approval.objects.filter(step=scene.step).order_by("revision"))
    ends = Counter(
        (event.fields["approval"], event.kind)
        for event in Event.objects.filter(run=run, kind__startswith="approval.")
        if event.kind.split(".")[1] in ApprovalState.values
    )
    assert set(ends.values()) <= {1}, ends
    for approval in revisions:
        closing = [kind for pk, kind in ends if pk == approval.pk]
        ways = {f"approval.{approval.state}"} - {"approval.pending"}
        assert ways <= set(closing) and len(set(closing) - ways - {"approval.approved"}) == 0
    assert Edit.objects.filter(run=run, state=EditState.ASKED).count() == run.unchecked_edits
    return run, Step.objects.get(pk=scene.step.pk), revisions


@EXAMPLES
@given(acts=some.lists(some.sampled_from(PENDING), min_size=2, max_size=6))
@example(acts=["approve", "reject", "edit", "expire", "cancel"])
@example(acts=["edit", "edit", "open", "open", "approve", "reject"])
@example(acts=["approve"] * 6)
def test_of_all_who_decide_on_a_call_that_waits_one_decides(acts: list[str]) -> None:
    scene = a_scene(len(acts))
    outcomes = at_once(scene, acts)
    _, step, revisions = check(scene, outcomes)
    first = revisions[0]
    won = [name for name, said in outcomes if said == "done" and DECIDES.get(name) == first.state]
    if first.state in {"approved", "rejected"}:
        assert len(won) == Vote.objects.filter(approval=first).count() == 1
    if first.state == "superseded":
        assert [one.state for one in revisions[1:]] in (["pending"], ["cancelled"])
        assert not Vote.objects.filter(approval=first).exists()
    edits = [name for name, said in outcomes if (name, said) == ("edit", "done")]
    assert len(edits) == Edit.objects.filter(run=scene.run).count()
    ready = {"approved": {StepStatus.READY, StepStatus.REFUSED}}  # cancelled after it was approved
    waiting = {"pending", "superseded"}
    expected = {StepStatus.WAITING, StepStatus.REFUSED} if first.state in waiting else {StepStatus.REFUSED}
    assert step.status in ready.get(first.state, expected)


@EXAMPLES
@given(acts=some.lists(some.sampled_from(APPROVED), min_size=2, max_size=6))
@example(acts=["start", "revoke"])
@example(acts=["start", "start", "revoke", "revoke", "cancel"])
@example(acts=["start", "drift", "revoke", "refuse"])
def test_of_start_and_everything_that_prevents_it_one_happens(acts: list[str]) -> None:
    scene = a_scene(len(acts))
    scene.approve(_user(f"first-{scene.run.pk}", "decide"))
    outcomes = at_once(scene, acts)
    run, step, revisions = check(scene, outcomes)
    first = revisions[0]
    started = [name for name, said in outcomes if said == "started"]
    revoked = [name for name, said in outcomes if (name, said) == ("revoke", "done")]
    assert len(started) + len(revoked) <= 1
    assert (first.redeemed_at is not None) == bool(started)
    assert (first.state == "revoked") == bool(revoked)
    assert Event.objects.filter(run=run, kind="call.started").count() == len(started)
    if revoked:
        assert step.status == StepStatus.REFUSED
    if started and run.status != RunStatus.CANCELLED:
        assert step.status == StepStatus.EXECUTING
    late = [said for name, said in outcomes if name == "revoke" and said != "done"]
    assert set(late) <= {"AlreadyStarted", "AlreadyDecided"} and Vote.objects.count() >= 1
