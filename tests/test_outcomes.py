"""Effects whose outcome is unknown: probes, answers that come late, and what a person says became of them."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from runs import actions
from runs.actions import Lease
from runs.claude.simulator import handler
from runs.claude.simulator.answer import Answer
from runs.engine import model
from runs.engine.drive import drive
from runs.models import (
    Approval,
    ApprovalState,
    Event,
    Finding,
    Resolution,
    Run,
    RunStatus,
    Says,
    Step,
    StepStatus,
)
from runs.reading.invariants import contradictions
from tests.factories import (
    a_lease,
    a_run,
    a_turn,
    contradictions_beside_deadlines,
    perform,
    reconfigure,
    run_calls,
)
from tools import boundary, registry, threads
from tools.base import CannotTell, DidNotHappen, Happened, Result, Tool, ToolContext, ToolError, tool

pytestmark = pytest.mark.django_db(transaction=True)
CONTEXT = ToolContext("production", "nowhere", "key", "ev_01")


class Letterbox:
    """The world of a tool that sends letters: what was sent, and how sending and looking go."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.looked: list[tuple[str, str]] = []
        self.sending: Callable[[], object] = lambda: None
        self.looking: Callable[[], Any] | None = None

    def send(self, context: ToolContext, to: str) -> Result:
        self.sending()
        self.sent.append(context.idempotency_key)
        return Result(summary=f"Sent to {to}.", data={"to": to})

    def look(self, context: ToolContext, to: str) -> Any:
        self.looked.append((context.idempotency_key, to))
        if self.looking is not None:
            return self.looking()
        if context.idempotency_key in self.sent:
            return Happened(Result(summary=f"A letter to {to} is in the outbox.", data={"token": "x"}))
        return DidNotHappen("The outbox has no such letter.")


def send_letter(
    box: Letterbox,
    idempotency: Literal["reconcile", "key", "none"] = "reconcile",
    effect: Literal["write", "destructive"] = "write",
    deadline_seconds: float = 20.0,
) -> Tool:
    """A tool that sends letters through this box."""

    @tool(
        effect=effect,
        idempotency=idempotency,
        describe=lambda arguments: f"Send a letter to {arguments.get('to')}",
        deadline_seconds=deadline_seconds,
        dry_run=(lambda context, *, to: {"headline": f"Send a letter to {to}", "object": to}),
        probe=(lambda context, *, to: box.look(context, to)) if idempotency == "reconcile" else None,
    )
    def send_letter(context: ToolContext, *, to: str) -> Result:
        """Send a letter."""
        return box.send(context, to)

    return send_letter


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Letterbox:
    """A letterbox, and its tool among the tools."""
    made = Letterbox()
    monkeypatch.setitem(registry.TOOLS, "send_letter", send_letter(made))
    return made


def offered(run: Run) -> Run:
    """The run with the tool offered."""
    configuration = json.loads(run.config)
    configuration["tools"].append(registry.TOOLS["send_letter"].definition())
    reconfigure(run, configuration)
    return Run.objects.get(pk=run.pk)


def a_started_letter(effect: str = "write") -> tuple[Lease, Step]:
    """A call whose START is committed, and whose worker is about to die."""
    run = offered(a_run())
    lease = a_lease(run)
    (step,) = a_turn(lease, ("send_letter", effect, {"to": "mum"}))
    if effect == "destructive":
        perform(lease)
    else:
        actions.allow_call(lease, step.seq, rule="test")
        assert actions.start_call(lease, step.seq, tool_version=step.tool_version)
    return lease, step


def an_unknown_letter() -> tuple[Lease, Step]:
    """A call whose outcome is unknown, in a run that goes on."""
    lease, step = a_started_letter()
    actions.recover_call(lease, step.seq, repeatable=False)
    return lease, the(step)


def the(step: Step) -> Step:
    return Step.objects.select_related("run").get(pk=step.pk)


def its_time_is_over(step: Step) -> None:
    Step.objects.filter(pk=step.pk).update(begun_at=timezone.now() - timedelta(hours=1))


def resolve(step: Step, by: User, verdict: str = "happened", evidence: str = "I saw it.") -> Resolution:
    return actions.resolve_outcome(
        run_id=step.run_id, seq=step.seq, verdict=verdict, evidence=evidence, by=by
    )


# How a tool declares it, and what its probe may answer.


def test_a_probe_belongs_to_a_change_that_can_be_looked_up() -> None:
    def act(context: ToolContext) -> Result:
        """Act."""
        return Result(summary="Done.")

    def probe(context: ToolContext) -> CannotTell:
        return CannotTell("?")

    with pytest.raises(TypeError, match="probe"):
        tool(effect="write", idempotency="reconcile", describe=str)(act)
    with pytest.raises(TypeError, match="probe"):
        tool(effect="write", idempotency="key", describe=str, probe=probe)(act)
    with pytest.raises(TypeError, match="probe"):
        tool(effect="read", idempotency="reconcile", describe=str, probe=probe)(act)


def fails(error: BaseException) -> Callable[[], Any]:
    def raises() -> Any:
        raise error

    return raises


@pytest.mark.parametrize(
    ("looking", "words"),
    [
        (fails(RuntimeError("password=hunter2")), "unexpectedly"),
        (fails(SystemExit(1)), "unexpectedly"),
        (fails(ToolError("unavailable", "The outbox is down.")), "The outbox is down."),
        (lambda: None, "unexpectedly"),
        (lambda: Happened(Result(summary="Yes.", data={"x": object()})), "cannot be read"),
        (lambda: CannotTell("The outbox keeps a day only."), "keeps a day only"),
    ],
)
def test_a_probe_that_fails_or_answers_nonsense_cannot_tell(
    box: Letterbox, looking: Callable[[], Any], words: str
) -> None:
    box.looking = looking
    probed = boundary.probe(registry.TOOLS["send_letter"], {"to": "mum"}, CONTEXT)
    assert probed.said == "cannot_tell" and probed.outcome is None
    assert words in probed.evidence and "hunter2" not in probed.evidence


def test_a_probe_that_hangs_cannot_tell_and_holds_nothing_up(box: Letterbox) -> None:
    gate = threading.Event()
    box.looking = lambda: gate.wait(20)
    try:
        hanging = replace(registry.TOOLS["send_letter"], deadline_seconds=0.05)
        probed = boundary.probe(hanging, {"to": "mum"}, CONTEXT)
    finally:
        gate.set()
    assert probed.said == "cannot_tell" and "did not answer within 0.05 s" in probed.evidence


def test_what_a_probe_says_is_masked_and_bounded_like_any_answer(box: Letterbox) -> None:
    secret = "postgres://admin:hunter2secret@db/prod"
    for looking in (
        lambda: Happened(Result(summary=f"Seen at {secret}.", data={"long": ["x" * 400] * 4_000})),
        lambda: DidNotHappen(f"Not at {secret}. " + "x" * 5_000),
    ):
        box.looking = looking
        probed = boundary.probe(registry.TOOLS["send_letter"], {"to": "mum"}, CONTEXT)
        assert "hunter2secret" not in probed.evidence and len(probed.evidence) <= 300
        assert probed.outcome is None or len(probed.outcome.text) <= 8_000


# What the engine makes of it.


def test_a_lost_call_that_happened_is_settled_with_what_the_probe_found(box: Letterbox) -> None:
    lease, step = a_started_letter()
    box.sent.append(f"call-{step.run.request_id}-{step.seq}")
    perform(lease)
    step = the(step)
    assert step.status == StepStatus.SUCCEEDED
    assert "outbox" in step.summary and "probe found" in step.result
    assert box.looked == [(box.sent[0], "mum")] and len(box.sent) == 1
    finding = Finding.objects.get()
    assert (finding.found_by, finding.says, finding.worker) == ("probe", "happened", "worker-1")
    kinds = list(step.run.events.values_list("kind", flat=True))
    assert kinds[-2:] == ["call.probed", "call.finished"]
    assert contradictions(step.run) == []


def test_what_did_not_happen_is_believed_and_started_again_only_when_its_time_is_over(box: Letterbox) -> None:
    lease, step = a_started_letter()
    assert perform(lease) is False
    run = the(step).run
    assert (the(step).status, run.status, run.reason) == (StepStatus.EXECUTING, RunStatus.QUEUED, "probe")
    assert run.retry_at and run.retry_at <= timezone.now() + timedelta(seconds=20)
    its_time_is_over(step)
    Run.objects.update(retry_at=None)
    lease = a_lease(run, "worker-2")
    perform(lease)
    assert (the(step).status, the(step).attempt, box.sent) == (StepStatus.READY, 2, [])
    perform(lease)
    assert (the(step).status, len(box.sent)) == (StepStatus.SUCCEEDED, 1)
    assert contradictions(the(step).run) == []


def test_what_is_started_in_vain_three_times_has_failed(box: Letterbox) -> None:
    box.sending = fails(RuntimeError("the connection broke"))
    lease, step = a_started_letter()
    its_time_is_over(step)
    for _ in range(3):  # looked up, tried, tried
        perform(lease)
    step = the(step)
    assert (step.status, step.attempt, box.sent) == (StepStatus.FAILED, 3, [])
    assert "did not take effect" in step.error and Finding.objects.count() == 3


def test_after_a_timeout_what_did_not_happen_may_still_happen(
    box: Letterbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    box.sending = lambda: gate.wait(20)
    monkeypatch.setitem(registry.TOOLS, "send_letter", send_letter(box, deadline_seconds=0.05))
    run = offered(a_run())
    lease = a_lease(run)
    (step,) = a_turn(lease, ("send_letter", "write", {"to": "mum"}))
    try:
        perform(lease)
    finally:
        gate.set()
        threads.end(10)
    step = the(step)
    assert (step.status, step.attempt, step.error_kind) == (StepStatus.UNKNOWN, 1, "timeout")
    probed, late = Finding.objects.order_by("pk")  # and it did happen: whoever resolves it sees that
    assert (probed.found_by, probed.says) == ("probe", "did_not_happen")
    assert (late.found_by, late.says, len(box.sent)) == ("late", "happened", 1)


def test_an_approval_holds_for_the_next_start_only_until_its_time(
    box: Letterbox, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.TOOLS, "send_letter", send_letter(box, effect="destructive"))
    lease, step = a_started_letter("destructive")
    approval = Approval.objects.get()
    actions.decide(
        approval_id=approval.pk, voter=operator, verdict="approve", revision=1, digest=approval.digest
    )
    assert actions.start_call(lease, step.seq, tool_version=step.tool_version)
    its_time_is_over(step)
    perform(lease)  # the probe: it did not happen
    Approval.objects.update(execute_by=timezone.now() - timedelta(seconds=1))
    run_calls(lease)
    step = the(step)
    assert (step.status, step.error_kind, box.sent) == (StepStatus.FAILED, "expired", [])
    assert "a probe found that it did not take effect" in step.error
    assert contradictions_beside_deadlines(step.run) == []


def test_a_decision_on_a_tool_that_changed_meanwhile_is_void(
    box: Letterbox, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.TOOLS, "send_letter", send_letter(box, effect="destructive"))
    lease, step = a_started_letter("destructive")
    approval = Approval.objects.get()
    actions.decide(
        approval_id=approval.pk, voter=operator, verdict="approve", revision=1, digest=approval.digest
    )
    monkeypatch.setitem(registry.TOOLS, "send_letter", replace(registry.TOOLS["send_letter"], version="2"))
    run_calls(lease)
    approval.refresh_from_db()
    assert (the(step).status, the(step).error_kind) == (StepStatus.REFUSED, "changed")
    assert approval.state == ApprovalState.INVALIDATED
    kinds = list(the(step).run.events.values_list("kind", flat=True))
    assert kinds[-2:] == ["approval.invalidated", "call.refused"]
    assert contradictions(the(step).run) == []


def test_a_late_answer_names_the_attempt_that_it_answers(
    box: Letterbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    box.sending = lambda: box.looked or (box.looked.append(("", "")), let_go.wait(20))  # the first one hangs
    monkeypatch.setitem(registry.TOOLS, "send_letter", send_letter(box, "key", deadline_seconds=0.05))
    lease = a_lease(offered(a_run()))
    (step,) = a_turn(lease, ("send_letter", "write", {"to": "mum"}))
    perform(lease)
    assert (the(step).status, the(step).attempt) == (StepStatus.READY, 2)
    perform(lease)
    assert the(step).status == StepStatus.SUCCEEDED
    let_go.set()
    threads.end(20)
    assert (Finding.objects.get().found_by, Finding.objects.get().attempt) == ("late", 1)
    assert contradictions(the(step).run) == []


@pytest.mark.parametrize("fate", ["takeover", "cancel"])
def test_an_answer_that_comes_too_late_is_evidence_and_changes_nothing(
    box: Letterbox, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    monkeypatch.setitem(registry.TOOLS, "send_letter", send_letter(box, "none"))
    begun, let_go = threading.Event(), threading.Event()
    box.sending = lambda: (begun.set(), let_go.wait(20))
    run = offered(a_run())
    lease = a_lease(run)
    (step,) = a_turn(lease, ("send_letter", "write", {"to": "mum"}))

    def work() -> None:
        drive(lease, lambda: False)
        connections.close_all()

    driver = threading.Thread(target=work)
    driver.start()
    assert begun.wait(20)
    if fate == "cancel":
        actions.cancel_run(run_id=run.pk, actor="olga")
    else:
        Run.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        run_calls(a_lease(run, "worker-2"))
    before = the(step)
    let_go.set()
    driver.join(20)
    after = the(step)
    assert (after.status, after.result) == (StepStatus.UNKNOWN, before.result)
    finding = Finding.objects.get()
    assert (finding.found_by, finding.says, finding.worker) == ("late", "happened", "worker-1")
    assert finding.evidence == "Sent to mum." and "Sent to mum." in finding.result
    assert contradictions(after.run) == []


# What a person says.


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the model is sent; it answers that it is done."""
    sent: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> Answer:
        sent.append(body)
        return Answer("I have what I need.", text="It is done.")

    monkeypatch.setattr(handler, "think", answer)
    model.disconnect()
    yield sent
    model.disconnect()


WORDS = {
    "happened": "it took effect. Do not repeat it.",
    "did_not_happen": "you may propose it again",
    "abandoned": "nobody could find out",
}


@pytest.mark.parametrize("verdict", WORDS)
def test_the_model_is_told_what_a_person_found_and_its_history_stays(
    box: Letterbox, operator: User, requests: list[dict[str, Any]], verdict: str
) -> None:
    lease, step = an_unknown_letter()
    perform(lease)  # the model answers before anybody looked
    resolve(step, operator, verdict, "I asked mum.")
    drive(lease, lambda: False)
    first, second = ([block for said in body["messages"] for block in said["content"]] for body in requests)
    assert second[: len(first)] == first
    assert WORDS[verdict] in second[-1]["text"] and "“I asked mum.”" in second[-1]["text"]
    run = the(step).run
    assert (the(step).status, the(step).result) == (StepStatus.UNKNOWN, step.result)
    assert (run.status, run.untold) == (RunStatus.SUCCEEDED, 0)
    assert contradictions(run) == []


def test_what_is_found_after_the_end_is_told_when_the_run_is_continued(
    box: Letterbox, operator: User, requests: list[dict[str, Any]]
) -> None:
    lease, step = an_unknown_letter()
    drive(lease, lambda: False)
    resolve(step, operator)
    assert the(step).run.status == RunStatus.SUCCEEDED and len(requests) == 1
    more = actions.ask_follow_up(run_id=step.run_id, actor="olga", user=operator, question="And now?")
    drive(a_lease(more), lambda: False)
    told, asked = requests[-1]["messages"][-1]["content"][-2:]
    assert "it took effect" in told["text"] and asked["text"] == "And now?"
    copy = more.steps.get(name="send_letter")
    with pytest.raises(actions.ActionError, match="is a copy"):
        resolve(copy, operator)


def test_what_is_found_after_a_hand_over_is_told_where_the_work_goes_on(
    box: Letterbox, client: Client, operator: User, requests: list[dict[str, Any]]
) -> None:
    lease, step = an_unknown_letter()
    run = step.run
    limits = run.frozen["limits"]
    second = actions.hand_over(lease, summary="So far.", limits=limits, explanation="Too long.")
    client.force_login(operator)
    page = client.get(f"/approvals/unknown/{step.pk}/").content.decode()
    assert "told to the agent" in page and "The run has ended" not in page
    resolve(step, operator, "did_not_happen", "I asked mum.")
    page = client.get(f"/approvals/unknown/{step.pk}/").content.decode()
    assert f'told with its next turn, in <a href="{second.get_absolute_url()}">run {second.pk}</a>' in page
    drive(a_lease(second), lambda: False)
    told = [
        block["text"] for said in requests[-1]["messages"] for block in said["content"] if "text" in block
    ]
    assert sum("“I asked mum.”" in text for text in told) == 1
    third = actions.ask_follow_up(run_id=second.pk, actor="olga", user=operator, question="And now?")
    assert third.untold == 0 and third.steps.filter(name=f"outcome:{run.pk}:{step.seq}").count() == 1
    for one in (run, second, third):
        assert contradictions(Run.objects.get(pk=one.pk)) == []


def test_what_is_found_while_nobody_goes_on_is_told_by_a_follow_up_of_the_last_run(
    box: Letterbox, client: Client, operator: User, requests: list[dict[str, Any]]
) -> None:
    lease, step = an_unknown_letter()
    limits = step.run.frozen["limits"]
    second = actions.hand_over(lease, summary="So far.", limits=limits, explanation="Too long.")
    drive(a_lease(second), lambda: False)
    resolve(step, operator)
    client.force_login(operator)
    page = client.get(f"/approvals/unknown/{step.pk}/").content.decode()
    assert f"Run {second.pk}</a> went on with the work and has ended" in page
    actions.ask_follow_up(run_id=second.pk, actor="olga", user=operator, question="And now?")
    third = Run.objects.get(parent_run=second)
    drive(a_lease(third), lambda: False)
    assert any("it took effect" in str(said) for said in requests[-1]["messages"])
    assert contradictions(Run.objects.get(pk=second.pk)) == []


def test_the_first_person_holds_and_the_second_is_told(
    box: Letterbox, operator: User, second_operator: User, viewer: User
) -> None:
    _, step = an_unknown_letter()
    with pytest.raises(actions.MayNotDecide, match="vera may look"):
        resolve(step, viewer)
    with pytest.raises(actions.ActionError, match="Say how you know"):
        resolve(step, operator, evidence="  \n")
    resolve(step, operator, "abandoned")
    with pytest.raises(actions.AlreadyResolved, match=r"by olga at \d\d:\d\d:\d\d UTC: abandoned"):
        resolve(step, second_operator)
    assert Resolution.objects.get().by == operator
    assert the(step).run.events.filter(kind="call.resolved").count() == 1


def test_only_an_unknown_outcome_is_resolved(box: Letterbox, operator: User) -> None:
    lease, step = a_started_letter()
    with pytest.raises(actions.ActionError, match="is known: it is executing"):
        resolve(step, operator)
    with pytest.raises(actions.ActionError, match="Step 1 of this run is no tool call"):
        actions.resolve_outcome(
            run_id=lease.run_id, seq=1, verdict="happened", evidence="I saw it.", by=operator
        )


# Every order of deaths, probes, late answers and people.

events = st.sampled_from(["die", "late", "happened", "did_not_happen", "abandoned", "effect", "run"])


@bounded(
    max_examples=16, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
@given(story=st.lists(events, min_size=1, max_size=10), blind=st.booleans())
def test_whatever_order_things_happen_in_the_rows_agree(
    box: Letterbox, operator: User, story: list[str], blind: bool
) -> None:
    box.sent.clear()
    box.looking = (lambda: CannotTell("It is dark.")) if blind else None
    lease, step = a_started_letter()
    said: list[str] = []
    for number, event in enumerate(story):
        before = the(step)
        if event == "die" and before.status == StepStatus.EXECUTING:
            its_time_is_over(step)
            Run.objects.filter(pk=step.run_id).update(lease_until=None)
            lease = a_lease(step.run, f"worker-{number}")
            perform(lease)
        elif event == "run" and before.status == StepStatus.READY:
            assert actions.start_call(lease, step.seq, tool_version=step.tool_version)
        elif event == "effect" and before.status == StepStatus.EXECUTING and not box.sent:
            box.sent.append(f"call-{step.run.request_id}-{step.seq}")
        elif event == "late":
            found = actions.Found(Says.HAPPENED, "Sent.", actions.Result("{}", False, "Sent.", ""))
            actions.record_late_result(lease, step.seq, found, attempt=before.attempt)
            assert the(step).status == before.status and the(step).result == before.result
        elif event in WORDS:
            if before.status == StepStatus.UNKNOWN and not said:
                said.append(resolve(step, operator, event).verdict)
            else:
                with pytest.raises(actions.ActionError):
                    resolve(step, operator, event)
            assert the(step).status == before.status and the(step).result == before.result
        if before.is_settled:
            assert the(step).status == before.status
        assert contradictions(the(step).run) == []
    assert [one.verdict for one in Resolution.objects.filter(step=step)] == said
    assert the(step).status != StepStatus.SUCCEEDED or box.sent
    assert the(step).status != StepStatus.UNKNOWN or blind


# The lane.


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """Olga's browser."""
    client.force_login(operator)
    return client


def text_of(page: Client, path: str) -> str:
    response = page.get(path)
    assert response.status_code == 200
    return response.content.decode()


def test_the_lane_shows_all_that_is_known_and_takes_a_finding(box: Letterbox, page: Client) -> None:
    assert "Every outcome is known" in text_of(page, "/approvals/unknown/")
    box.looking = lambda: CannotTell("The outbox <b>keeps</b> a day only.")
    lease, step = a_started_letter()
    its_time_is_over(step)
    perform(lease)
    late = actions.Found(Says.HAPPENED, "Sent to mum.", actions.Result("{}", False, "Sent.", ""))
    actions.record_late_result(lease, step.seq, late, attempt=1)
    shown = text_of(page, "/approvals/unknown/")
    for words in (
        "send_letter in",
        "worker-1",
        "&lt;b&gt;keeps",
        "The tool answered late",
        "mum",
        'data-outcomes="1"',
    ):
        assert words in shown, words
    assert "Take its word" in text_of(page, f"/runs/{step.run.request_id}/?step={step.seq}")
    path = f"/approvals/unknown/{step.pk}/resolve/"
    assert "Say how you know" in page.post(path, {"verdict": "happened"}).content.decode()
    answer = page.post(path, {"verdict": "abandoned", "evidence": "Nobody knows."}, follow=True)
    assert "Recorded: send_letter" in answer.content.decode()
    again = page.post(path, {"verdict": "happened", "evidence": "I saw it after all."})
    assert again.status_code == 409
    assert (
        "Already resolved by olga" in again.content.decode()
        and "I saw it after all." in again.content.decode()
    )
    shown = text_of(page, f"/runs/{step.run.request_id}/?step={step.seq}")
    assert "Abandoned" in shown and "The agent is told with its next turn." in shown
    assert 'data-outcomes="0"' in shown


def test_a_viewer_looks_and_does_not_settle(box: Letterbox, client: Client, viewer: User) -> None:
    _, step = an_unknown_letter()
    client.force_login(viewer)
    assert "You may look but not decide" in text_of(client, f"/approvals/unknown/{step.pk}/")
    path = f"/approvals/unknown/{step.pk}/resolve/"
    assert client.post(path, {"verdict": "happened", "evidence": "I did."}).status_code == 403
    assert client.get("/approvals/unknown/999999/").status_code == 404
    assert not Resolution.objects.exists()


def test_the_command_settles_an_outcome(box: Letterbox) -> None:
    _, step = an_unknown_letter()
    words = ("resolve", str(step.run.request_id), "--step", str(step.seq), "did-not-happen")
    out = io.StringIO()
    call_command("controlrun", *words, "Mum got nothing.", stdout=out)
    assert "It is recorded" in out.getvalue()
    assert Resolution.objects.get().verdict == "did_not_happen"
    with pytest.raises(CommandError, match="Already resolved by"):
        call_command("controlrun", *words, "Mum got nothing.")


TAMPERED: list[tuple[str, Callable[[], object]]] = [
    ("is succeeded, but a person", lambda: Step.objects.filter(status="unknown").update(status="succeeded")),
    ("0 outcomes to tell, there are 1", lambda: Run.objects.update(untold=0)),
    ("without an event", lambda: Event.objects.filter(kind="call.resolved").update(kind="call.odd")),
    (
        "but its probe said cannot_tell",
        lambda: [
            Resolution.objects.all().delete(),
            Step.objects.filter(status="unknown").update(status="succeeded"),
        ],
    ),
]


@pytest.mark.parametrize(("words", "tamper"), TAMPERED)
def test_the_checker_finds_findings_that_fit_nothing(
    box: Letterbox, operator: User, words: str, tamper: Callable[[], object]
) -> None:
    box.looking = lambda: CannotTell("It is dark.")
    lease, step = a_started_letter()
    its_time_is_over(step)
    perform(lease)
    resolve(step, operator)
    assert contradictions(the(step).run) == []
    tamper()
    assert any(words in sentence for sentence in contradictions(the(step).run))


@pytest.mark.browser
def test_a_late_answer_is_taken_with_one_click(
    box: Letterbox, operator: User, browser: Any, live_server: Any, client: Client
) -> None:
    lease, step = an_unknown_letter()
    late = actions.Found(Says.HAPPENED, "Sent to mum.", actions.Result("{}", False, "Sent.", ""))
    actions.record_late_result(lease, step.seq, late, attempt=1)
    client.force_login(operator)
    view = browser.new_context(viewport={"width": 390, "height": 844})
    view.add_cookies(
        [{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}]
    )
    page = view.new_page()
    page.goto(f"{live_server.url}/approvals/unknown/")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="It happened", exact=True).click()  # without evidence it is not sent
    assert not Resolution.objects.exists()
    page.get_by_role("button", name="Take its word").click()
    page.get_by_text("Recorded: send_letter").wait_for()
    assert Resolution.objects.get().evidence == "The tool answered late: Sent to mum."
    view.close()
