"""The checker of runs finds every way in which their rows can contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from django.utils import timezone

from runs import actions
from runs.models import Approval, ApprovalState, Charge, Event, Run, RunStatus, Step, StepStatus, Vote
from runs.reading.invariants import contradictions
from tests.factories import a_lease, a_turn, a_waiting_call

Tamper = Callable[[], object]


@pytest.fixture
def run(operator: User) -> Run:
    """A run that went well: a revert was approved and executed, and the agent answered."""
    _, step, approval = a_waiting_call()
    actions.decide(
        approval_id=approval.pk, voter=operator, verdict="approve", revision=1, digest=approval.digest
    )
    run = Run.objects.get()
    lease = a_lease(run)
    assert actions.start_call(lease, step.seq, tool_version=step.tool_version)
    actions.finish_call(lease, step.seq, actions.Result('{"status":"ok"}', False, "Done.", ""))
    a_turn(lease, text="Resolved.")
    actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="Resolved.")
    run.refresh_from_db()
    assert contradictions(run) == []
    return run


TAMPERED: list[tuple[str, Tamper]] = [
    (
        "not about what its digest says",
        lambda: Approval.objects.update(arguments='{"deployment_id":"dep_9"}'),
    ),
    ("not those it was started with", lambda: Approval.objects.update(arguments='{"deployment_id":"dep_9"}')),
    ("other arguments than the message", lambda: Step.objects.filter(kind="tool").update(arguments="{}")),
    ("not the one that was recorded", lambda: Step.objects.filter(kind="tool").update(result="{}")),
    ("message of turn", lambda: Step.objects.filter(seq=1).update(message='{"content":[]}')),
    ("0 runs go on with its work", lambda: Run.objects.update(status="stopped", reason="continued")),
    ("does not fit its hash", lambda: Event.objects.filter(seq=3).update(data='{"step":9}')),
    ("does not fit its hash", lambda: Event.objects.filter(seq=7).update(actor="somebody")),
    ("is missing", lambda: Event.objects.filter(seq=4).delete()),
    ("the run knows", lambda: Event.objects.order_by("-seq")[0].delete()),
    ("the steps are numbered", lambda: Step.objects.filter(seq=3).update(seq=7)),
    ("counts 9 steps", lambda: Run.objects.update(step_count=9)),
    ("tool steps", lambda: Run.objects.update(tool_calls=5)),
    ("input_tokens", lambda: Run.objects.update(input_tokens=1)),
    ("cost_usd: the run says", lambda: Run.objects.update(cost_usd=Decimal("0.5"))),
    ("its charges add up to", lambda: Step.objects.filter(seq=1).update(cost_usd=Decimal("0.5"))),
    ("has no charge", lambda: Charge.objects.all().delete()),
    ("is not at its prices", lambda: Charge.objects.update(amount=F("amount") + 1)),
    ("are numbered", lambda: Charge.objects.filter(step__seq=1).update(number=3)),
    ("the attempt ended at", lambda: Charge.objects.update(at=timezone.now())),
    ("the run of", lambda: Charge.objects.update(simulated=False)),
    ("was started by", lambda: Charge.objects.update(user="mallory")),
    ("its charge of", lambda: Charge.objects.update(model="another")),
    ("unpriced calls", lambda: Run.objects.update(unpriced_calls=2)),
    ("takes back None", lambda: Charge.objects.update(entry=-1)),
    ("which is no charge before it", lambda: Charge.objects.update(entry=-1, takes_back=7)),
    ("has no result", lambda: Step.objects.filter(seq=2).update(result="")),
    ("asked for", lambda: Step.objects.filter(seq=2).update(tool_use_id="toolu_other")),
    ("but the conversation went on", lambda: Step.objects.filter(seq=2).update(status=StepStatus.READY)),
    ("without an approval", lambda: Approval.objects.all().delete()),
    ("its approval is rejected", lambda: Approval.objects.update(state=ApprovalState.REJECTED)),
    ("with 0 of 1 votes", lambda: Vote.objects.update(digest="0" * 64)),
    ("its call is succeeded", lambda: Approval.objects.update(state=ApprovalState.PENDING)),
    ("its end is None", lambda: Run.objects.update(ended_at=None)),
    ("are open", lambda: Step.objects.filter(seq=1).update(status=StepStatus.RUNNING)),
    ("drives it", lambda: Run.objects.update(lease_owner="worker-9")),
    ("nobody is asked for", lambda: Run.objects.update(status=RunStatus.WAITING, ended_at=None)),
    ("waits since", lambda: Run.objects.update(waiting_since=timezone.now())),
]


@pytest.mark.parametrize(("words", "tamper"), TAMPERED, ids=[words for words, _ in TAMPERED])
def test_it_finds_what_was_tampered_with(run: Run, words: str, tamper: Tamper) -> None:
    tamper()
    run.refresh_from_db()
    found = contradictions(run)
    assert any(words in sentence for sentence in found), found
