"""Random faults, workers that lose their runs, people who decide: every run ends and its rows agree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from decimal import Decimal
from itertools import cycle
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from hypothesis import HealthCheck, event, given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from runs import actions
from runs.actions import Lease, LeaseLost
from runs.engine import model
from runs.engine.acts import Record
from runs.engine.drive import Driver
from runs.models import Approval, ApprovalState, Charge, Run, RunStatus, Step, StepKind, StepStatus
from tests.factories import a_run, contradictions_beside_deadlines
from tools.models import WorldAction

pytestmark = pytest.mark.django_db(transaction=True)

EXAMPLES = 24  # the same ones each time; AGENTOPS_CHAOS_EXAMPLES asks for so many new ones
NEW_EXAMPLES = int(os.environ.get("AGENTOPS_CHAOS_EXAMPLES", "0"))
MOST_MOVES = 200
QUESTIONS = (
    "PostgreSQL connection pool exhausted",
    "api error rate above 5 % since the last release",
    "Checkout is slow",
)

events = st.integers(0, 12)
# What the network does, what the server does, and what the model says. Nothing waits long.
faults = st.one_of(
    st.sampled_from(["status 500", "status 503", "status 529", "status 504", "status 402"]),
    st.sampled_from([0, 7, 3600]).map(lambda seconds: f"status 429 retry-after={seconds}"),
    st.builds("{} {}".format, st.sampled_from(["drop", "eof", "error"]), events),
    events.map(lambda number: f"stall {number} seconds=0.02"),
    st.sampled_from(
        ["empty", "pause_turn", "bad_json", "bad_json cut", "max_tokens tool", "max_tokens text"]
    ),
    st.sampled_from(["redacted", "block novel", "event novel", "slow 0.01"]),
    st.sampled_from(["refusal", "stop_reason novel", "status 400", "status 401"]),
)
scripts = st.lists(st.one_of(st.just(""), faults), min_size=3, max_size=12).map(
    lambda script: "; ".join(f"{number}: {fault}" for number, fault in enumerate(script, 1) if fault)
)
# How each act ends for its worker: well; with the loss of its lease; or with death, once its start is
# committed, once it is done and not recorded, or in the middle of the transaction that records it.
ends = st.sampled_from(["", "", "", "lease", "started", "done", "recording"])
fates = st.lists(ends, min_size=1, max_size=15)
verdicts = st.lists(st.sampled_from(["approve", "approve", "reject", "expire"]), min_size=1, max_size=3)


@pytest.fixture
def fresh_simulator(settings: Settings) -> Iterator[Settings]:
    """Leaves no simulator behind."""
    yield settings
    model.disconnect()


@bounded(
    max_examples=NEW_EXAMPLES or EXAMPLES,
    derandomize=not NEW_EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(question=st.sampled_from(QUESTIONS), script=scripts, fate=fates, said=verdicts)
def test_whatever_fails_a_run_ends_and_its_rows_agree(
    fresh_simulator: Settings,
    operator: User,
    question: str,
    script: str,
    fate: list[str],
    said: list[str],
) -> None:
    model.disconnect()
    fresh_simulator.AGENTOPS_SIMULATOR_FAULTS = script
    story = Story(a_run(question), operator, fate, said)
    run = story.play()
    turns = list(run.steps.filter(kind=StepKind.MODEL).order_by("seq"))
    event(f"the run {run.status} {run.reason}")
    for turn in turns:
        event(f"a turn {turn.status} {turn.error_kind}")
    sent = sum(len(simulator.requests) for simulator in model._simulators)
    assert sent == len(turns) - story.never_sent, "a request is no step, or a step was not sent"
    assert run.cost_usd == sum((turn.cost_usd or Decimal(0) for turn in turns), Decimal(0))
    assert all(step.is_settled for step in run.steps.filter(kind=StepKind.TOOL))
    if run.status == RunStatus.FAILED:
        assert run.reason != "internal_error" and run.explanation
    approved = Approval.objects.filter(run=run, state=ApprovalState.APPROVED, redeemed_at__isnull=False)
    allowed = {f"call-{run.request_id}-{approval.step.seq}" for approval in approved}
    changes = WorldAction.objects.filter(idempotency_key__startswith=f"call-{run.request_id}-")
    keys = list(changes.values_list("idempotency_key", flat=True))
    assert len(keys) == len(set(keys)) and set(keys) <= allowed


class Died(BaseException):
    """Stands for the end of a process: nothing of ours may catch it."""


@contextmanager
def death_at(name: str) -> Iterator[None]:
    """Meanwhile, whoever has written this, and has not committed it, dies."""
    action = getattr(actions, name)

    def deadly(*arguments: Any, **named: Any) -> Any:
        action(*arguments, **named)
        raise Died

    setattr(actions, name, deadly)
    try:
        yield
    finally:
        setattr(actions, name, action)


def _is_what_is_stored(lease: Lease) -> None:
    """What the driver remembers is what anybody else would read."""
    run, steps = lease.memory.run, lease.memory.steps
    assert run is not None
    assert _columns(run) == _columns(Run.objects.get(pk=run.pk))
    if steps is not None:
        stored = Step.objects.filter(run=run).order_by("seq")
        assert [_columns(step) for step in steps] == [_columns(step) for step in stored]


def _columns(row: Run | Step) -> dict[str, Any]:
    """The values of a row; drafts are for display, and a heartbeat moves the lease on its own."""
    left_out = {"draft", "lease_until"}
    return {
        field.attname: getattr(row, field.attname)
        for field in row._meta.concrete_fields
        if field.attname not in left_out
    }


class Story:
    """One run, the workers that take it from each other, and the people who decide."""

    def __init__(self, run: Run, voter: User, fate: list[str], said: list[str]) -> None:
        self._run = run
        self._voter = voter
        self._fate = cycle(fate)
        self._said = cycle(said)
        self._workers = self._moves = 0
        self.never_sent = 0

    def play(self) -> Run:
        """Live through it until the run is over."""
        while self._moves < MOST_MOVES:
            self._moves += 1
            lease = self._claim()
            while lease is not None:
                lease = self._drive(lease)
            self._run.refresh_from_db()
            assert contradictions_beside_deadlines(self._run) == []
            if self._run.is_ended:
                return self._run
            self._let_it_go_on()
        raise AssertionError(f"the run never ends: {self._run.status} {self._run.reason}")

    def _drive(self, lease: Lease) -> Lease | None:
        """Advance until there is nothing to do; or until this worker ends, then the lease of the next one."""
        driver, record = Driver(lease), None
        while self._moves < MOST_MOVES:
            self._moves += 1
            fate = next(self._fate)
            try:
                with ExitStack() as deaths:
                    for name in ("finish_turn", "finish_call") if fate == "recording" else ():
                        deaths.enter_context(death_at(name))
                    act = driver.advance(record, lambda: False)
            except Died:
                return self._steal(lease, record)
            _is_what_is_stored(lease)
            if act is None:
                return None
            if fate == "started":
                self.never_sent += self._run.steps.filter(status=StepStatus.RUNNING).count()
                return self._steal(lease, None)
            record = act()
            if fate in {"lease", "done"}:
                return self._steal(lease, record if fate == "lease" else None)
        return None

    def _claim(self) -> Lease | None:
        self._workers += 1
        return actions.claim(self._run.pk, f"worker-{self._workers}")

    def _steal(self, late: Lease, record: Record | None) -> Lease:
        """The lease runs out and another worker claims. The first one wakes up late and may not write."""
        Run.objects.filter(pk=late.run_id).update(lease_until=timezone.now() - timedelta(seconds=1))
        lease = self._claim()
        assert lease is not None
        before = self._rows()
        with pytest.raises(LeaseLost):
            Driver(late).advance(record, lambda: False)
        assert self._rows() == before
        return lease

    def _rows(self) -> list[tuple[int, str, int]]:
        found = Step.objects.filter(run=self._run).order_by("seq").values_list("seq", "status", "attempt")
        return [*found, (0, "events", self._run.events.count())]

    def _let_it_go_on(self) -> None:
        """What people do, and the time that passes until a retry."""
        if self._run.status == RunStatus.PAUSED:
            actions.resume_run(run_id=self._run.pk, actor="olga")
        if self._run.retry_at is not None:
            earlier = timezone.now() - timedelta(hours=1)
            Step.objects.filter(run=self._run, status=StepStatus.FAILED).update(ended_at=earlier)
            Charge.objects.filter(run=self._run, failed=True).update(at=earlier)
            Run.objects.filter(pk=self._run.pk).update(retry_at=earlier)
        for approval in Approval.objects.filter(run=self._run, state=ApprovalState.PENDING):
            self._settle(approval, next(self._said))

    def _settle(self, approval: Approval, verdict: str) -> None:
        if verdict == "expire":
            Approval.objects.filter(pk=approval.pk).update(expires_at=timezone.now())
            actions.expire_approvals(timezone.now())
            return
        actions.decide(
            approval_id=approval.pk,
            voter=self._voter,
            verdict="reject" if verdict == "reject" else "approve",
            reason="As discussed.",
            revision=approval.revision,
            digest=approval.digest,
        )
