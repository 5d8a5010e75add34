"""The whole loop in one process, against the real SDK, the simulator and the real tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.utils import timezone
from pytest_django.fixtures import Settings

from runs import actions
from runs.actions import Lease, LeaseLost
from runs.engine import model
from runs.engine.acts import Record
from runs.engine.drive import Driver, drive, situation
from runs.engine.lease_watch import LeaseWatch
from runs.models import Approval, ApprovalState, Charge, Run, RunStatus, Step, StepKind, StepStatus
from tests.factories import a_lease, a_run, a_turn, perform, reconfigure
from tools import registry
from tools.base import Result as ToolResult
from tools.base import ToolContext, tool
from tools.models import Ticket, WorldAction

pytestmark = pytest.mark.django_db(transaction=True)


def drive_to_the_end(run: Run, voter: User | None = None, verdict: str = "approve") -> Run:
    """Drive, decide what waits, and let the time of retries pass, until the run is over or paused."""
    for _ in range(60):
        lease = actions.claim(run.pk, "worker-1")
        if lease is not None:
            drive(lease, lambda: False)
        run.refresh_from_db()
        if run.is_ended or run.status == RunStatus.PAUSED:
            return run
        if run.retry_at is not None:
            # Only the waiting is skipped: the attempts look as if they were made long ago.
            earlier = timezone.now() - timedelta(hours=1)
            Step.objects.filter(run=run, status=StepStatus.FAILED).update(ended_at=earlier)
            Charge.objects.filter(run=run, failed=True).update(at=earlier)
            Run.objects.filter(pk=run.pk).update(retry_at=earlier)
        for approval in Approval.objects.filter(run=run, state=ApprovalState.PENDING):
            assert voter is not None
            actions.decide(
                approval_id=approval.pk,
                voter=voter,
                verdict=verdict,  # type: ignore[arg-type]
                reason="As discussed.",
                revision=approval.revision,
                digest=approval.digest,
            )
    raise AssertionError(f"the run never ends: {run.status} {run.reason}")


def failures(run: Run) -> list[str]:
    return list(run.steps.filter(kind=StepKind.MODEL, status="failed").values_list("error_kind", flat=True))


def test_it_finds_the_leak_reverts_it_and_proves_it(faults: Callable[[str], None], operator: User) -> None:
    run = drive_to_the_end(a_run(), operator)
    assert run.status == RunStatus.SUCCEEDED and run.final_response
    action = WorldAction.objects.get()
    assert (action.kind, action.service) == ("revert", "api")
    assert failures(run) == []


def test_it_takes_a_no_for_an_answer(faults: Callable[[str], None], operator: User) -> None:
    run = drive_to_the_end(a_run(), operator, "reject")
    assert run.status == RunStatus.SUCCEEDED
    assert not WorldAction.objects.exists()
    assert Ticket.objects.count() == 1
    asked = run.steps.filter(effect="destructive")
    assert [step.status for step in asked] == [StepStatus.REFUSED]


@pytest.mark.parametrize("scenario", ["noisy-healthy", "quiet"])
def test_it_leaves_a_healthy_system_alone(faults: Callable[[str], None], scenario: str) -> None:
    run = drive_to_the_end(a_run("api connection pool usage above 80 % (warning)", scenario=scenario))
    assert run.status == RunStatus.SUCCEEDED
    assert not run.steps.filter(effect="destructive").exists()


def test_it_asks_about_what_it_does_not_understand_honestly(faults: Callable[[str], None]) -> None:
    run = drive_to_the_end(a_run("Schreib mir ein Gedicht über den Herbst 🍂"))
    assert run.status == RunStatus.SUCCEEDED
    assert "simulator" in run.final_response.lower()


def test_history_is_append_only_and_the_same_bytes_after_a_restart(
    faults: Callable[[str], None], operator: User
) -> None:
    run = a_run()
    bodies = []
    # Another process takes over before every move: a new client, a new simulator, nothing but the rows.
    for number in range(80):
        lease = actions.claim(run.pk, f"worker-{number}")
        if lease is None:
            break
        perform(lease)
        bodies += [body for simulator in model._simulators for body in simulator.requests]
        model.disconnect()
        Run.objects.filter(pk=run.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        for approval in Approval.objects.filter(run=run, state=ApprovalState.PENDING):
            actions.decide(
                approval_id=approval.pk,
                voter=operator,
                verdict="approve",
                revision=1,
                digest=approval.digest,
            )
    run.refresh_from_db()
    assert run.status == RunStatus.SUCCEEDED and failures(run) == []
    assert len(bodies) >= 4
    for before, after in pairwise(bodies):
        assert json.dumps(before["system"]) == json.dumps(after["system"])
        assert json.dumps(before["tools"]) == json.dumps(after["tools"])
        prefix = [json.dumps(message) for message in before["messages"]]
        assert [json.dumps(message) for message in after["messages"]][: len(prefix)] == prefix


@pytest.mark.parametrize(
    ("script", "kinds"),
    [
        ("1-3: status 529 retry-after=3600", ["overloaded"] * 3),
        ("2: status 429 retry-after=30", ["rate_limit"]),
        ("2: drop 6", ["connection_lost"]),
        ("2: eof 6", ["truncated"]),
        ("3: error 4", ["overloaded"]),
        ("2: bad_json", ["invalid_tool_input"]),
        ("2: max_tokens tool", ["max_tokens"]),
        ("2: pause_turn", []),
        ("2: empty", []),
        ("2: redacted", []),
    ],
)
def test_it_survives_what_the_network_and_the_model_do(
    faults: Callable[[str], None], operator: User, script: str, kinds: list[str]
) -> None:
    faults(script)
    run = drive_to_the_end(a_run(), operator)
    assert (run.status, failures(run)) == (RunStatus.SUCCEEDED, kinds)
    assert WorldAction.objects.count() == 1
    calls = run.steps.filter(kind=StepKind.TOOL)
    assert all(step.status == StepStatus.SUCCEEDED and step.result for step in calls)
    costs = run.steps.filter(kind=StepKind.MODEL).values_list("cost_usd", flat=True)
    assert run.cost_usd == sum(costs)


def test_a_turn_that_broke_off_is_paid_for_by_estimate(faults: Callable[[str], None], operator: User) -> None:
    faults("2: drop 20")
    run = drive_to_the_end(a_run(), operator)
    lost = run.steps.get(error_kind="connection_lost")
    assert lost.usage_estimated and lost.cost_usd is not None and lost.cost_usd > Decimal(0)
    assert lost.output_tokens > 1 and not lost.message and not lost.draft


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        ("*: status 529", "overloaded", "Tried 6 times."),
        ("2: refusal", "refusal", "refused"),
        ("2: stop_reason novel", "novel", "do not know"),
        ("2: status 401", "authentication", "ANTHROPIC_API_KEY"),
        ("2: status 404", "not_found", "model name"),
    ],
)
def test_it_fails_with_a_sentence_a_person_can_act_on(
    faults: Callable[[str], None], script: str, reason: str, words: str
) -> None:
    faults(script)
    run = drive_to_the_end(a_run())
    assert (run.status, run.reason) == (RunStatus.FAILED, reason)
    assert words in run.explanation
    assert not run.final_response and not WorldAction.objects.exists()


def test_a_spend_limit_pauses_and_a_person_lets_it_go_on(
    faults: Callable[[str], None], operator: User
) -> None:
    faults("2: status 402")
    run = drive_to_the_end(a_run())
    assert (run.status, run.reason) == (RunStatus.PAUSED, "billing")
    assert actions.claim(run.pk, "worker-2") is None
    actions.resume_run(run_id=run.pk, actor="olga")
    assert drive_to_the_end(run, operator).status == RunStatus.SUCCEEDED


def test_no_model_at_all_pauses_and_says_what_to_set(
    faults: Callable[[str], None], settings: Settings
) -> None:
    run = a_run()
    settings.AGENTOPS_SIMULATOR = False
    with pytest.raises(actions.NoModelConfigured, match="ANTHROPIC_API_KEY"):
        a_run()
    run = drive_to_the_end(run)
    assert run.status == RunStatus.PAUSED and "AGENTOPS_SIMULATOR=1" in run.explanation


def test_an_error_of_ours_ends_the_run_with_a_reference_and_no_traceback(
    faults: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    run = a_run()
    reconfigure(run, {})
    run = drive_to_the_end(run)
    assert (run.status, run.reason) == (RunStatus.FAILED, "internal_error")
    reference = run.explanation.rstrip(".").split()[-1]
    assert reference in caplog.text and "Traceback" not in run.explanation


def test_calls_that_make_no_sense_become_results_that_say_what_to_do(
    faults: Callable[[str], None],
) -> None:
    run = a_run()
    lease = a_lease(run)
    a_turn(
        lease,
        ("format_disk", "read", {}),
        ("scale_service", "destructive", {"service_name": "api", "replicas": "many"}),
        ("search_logs", "read", {"query": 5}),
    )
    perform(lease)
    unknown, invalid, read = run.steps.filter(kind=StepKind.TOOL).order_by("seq")
    assert unknown.error_kind == "unknown_tool" and "search_logs" in unknown.result
    assert invalid.status == StepStatus.REFUSED and "replicas" in invalid.result
    assert read.status == StepStatus.FAILED and "query" in read.result
    assert not Approval.objects.exists()


def test_a_lost_effect_is_unknown_and_never_repeated_and_a_lost_read_is_made_again(
    operator: User,
) -> None:
    run = a_run()
    lease = a_lease(run)
    effect, read = a_turn(lease, ("charge_card", "write", {}), ("search_logs", "read", {}))
    for step in (effect, read):
        actions.allow_call(lease, step.seq, rule="test")
        assert actions.start_call(lease, step.seq, tool_version=step.tool_version) == "{}"
    actions.recover_call(lease, effect.seq, repeatable=False)
    actions.recover_call(lease, read.seq, repeatable=True)
    effect.refresh_from_db()
    read.refresh_from_db()
    assert effect.status == StepStatus.UNKNOWN
    assert json.loads(effect.result)["error"]["kind"] == "outcome_unknown"
    assert "Do not repeat" in effect.result
    assert (read.status, read.attempt) == (StepStatus.READY, 2)
    with pytest.raises(ValueError, match="unknown"):
        actions.start_call(lease, effect.seq, tool_version="v1")


def test_a_proposal_that_cannot_work_goes_back_to_the_model_and_not_to_a_person(operator: User) -> None:
    run = a_run()
    lease = a_lease(run)
    effect = {
        "service_name": "api",
        "metric": "error_rate",
        "comparison": "below",
        "value": 0.1,
        "within_seconds": 60,
    }
    a_turn(
        lease,
        (
            "revert_deployment",
            "destructive",
            {"deployment_id": "dep_9999", "reason": "?", "expected_effect": effect},
        ),
    )
    perform(lease)
    step = run.steps.get(kind=StepKind.TOOL)
    assert step.status == StepStatus.REFUSED and "dep_9999" in step.result
    assert not Approval.objects.exists()


def test_an_attempt_of_unknown_cost_counts_with_all_it_had_reserved(
    faults: Callable[[str], None], operator: User
) -> None:
    faults("1: drop 3")
    run = a_run()
    lease = a_lease(run)
    perform(lease)
    lost = run.steps.get()
    run.refresh_from_db()
    assert lost.usage_estimated and lost.reserved_usd is not None and lost.cost_usd is not None
    spent = situation(run, list(run.steps.order_by("seq"))).spent
    assert spent.cost_usd == lost.reserved_usd > run.cost_usd == lost.cost_usd
    assert spent.tokens == lost.reserved_tokens > run.total_tokens


def test_the_limit_on_time_counts_only_time_under_a_driver(faults: Callable[[str], None]) -> None:
    run = a_run()
    lease = a_lease(run)
    day = timedelta(days=1)
    actions.hand_back(lease)
    Run.objects.filter(pk=run.pk).update(created_at=run.created_at - day, started_at=run.created_at - day)
    a_lease(run, "worker-2")
    run.refresh_from_db()
    assert run.elapsed() >= day and run.active_seconds(timezone.now()) < 60


def test_a_change_whose_answer_was_lost_is_asked_again_with_the_same_key_or_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    @tool(effect="write", idempotency="key", describe=lambda _: "Charge a card")
    def charge_card(context: ToolContext) -> ToolResult:
        """Charge a card, and lose the answer the first time."""
        done.append(context.idempotency_key)
        if len(done) == 1:
            raise RuntimeError("the connection broke after the charge")
        return ToolResult(summary="Charged once.", data={})

    @tool(effect="write", idempotency="none", describe=lambda _: "Send a letter")
    def send_letter(context: ToolContext) -> ToolResult:
        """Send a letter, and lose the answer."""
        done.append("letter")
        raise RuntimeError("the connection broke after the letter")

    for item in (charge_card, send_letter):
        monkeypatch.setitem(registry.TOOLS, item.name, item)
    run = a_run()
    configuration = run.frozen
    configuration["tools"] += [charge_card.definition(), send_letter.definition()]
    reconfigure(run, configuration)
    lease = a_lease(run)
    a_turn(lease, ("charge_card", "write", {}), ("send_letter", "write", {}))
    for _ in range(3):  # charge, charge again, send
        perform(lease)
    charged, sent = run.steps.filter(kind=StepKind.TOOL).order_by("seq")
    assert (charged.status, charged.attempt) == (StepStatus.SUCCEEDED, 2)
    assert done[0] == done[1] and done[2:] == ["letter"]
    assert sent.status == StepStatus.UNKNOWN and sent.is_error


def test_a_tool_that_is_gone_when_its_call_is_ready_is_refused_and_the_run_goes_on(
    faults: Callable[[str], None], operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    lease = a_lease(run)
    (step,) = a_turn(lease, ("search_logs", "read", {"query": "", "time_range": {"start": "now-1h"}}))
    actions.allow_call(lease, step.seq, rule="test")
    monkeypatch.delitem(registry.TOOLS, "search_logs")
    perform(lease)
    step.refresh_from_db()
    assert (step.status, step.error_kind) == (StepStatus.REFUSED, "unknown_tool")


# ------------------------------------------------------------ what a driver holds in its hands


def test_what_an_act_brought_is_kept_when_the_run_is_lost_on_the_second_try_to_store_it() -> None:
    lease = a_lease(a_run())
    kept: list[str] = []
    ends = iter([ValueError("an error of ours"), LeaseLost("cancelled meanwhile")])

    def store() -> None:
        raise next(ends)

    with pytest.raises(LeaseLost):
        Driver(lease).advance(Record(store, lambda: kept.append("evidence")), lambda: False)
    assert kept == ["evidence"]


def test_a_lease_counts_as_held_while_the_database_does_not_answer() -> None:
    lease = a_lease(a_run())
    asked = []

    def still_held(leases: Collection[Lease]) -> set[Lease]:
        asked.append(leases)
        raise OperationalError("the server closed the connection")

    with LeaseWatch(still_held).over(lease) as is_lost:
        assert not is_lost() and asked
