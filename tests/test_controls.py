"""What people do with a run: cancel, pause, resume, retry, ask again, fork. On the page, and as a command."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import Client
from django.urls import reverse
from pytest_django.fixtures import Settings

from runs import actions
from runs.actions import ActionError
from runs.agents import Limits
from runs.engine import model
from runs.engine.drive import drive
from runs.models import Approval, ApprovalState, Run, RunStatus, Step, StepKind, StepStatus
from runs.reading.invariants import contradictions
from tests.conftest import eventually
from tests.factories import a_lease, a_run, a_turn, a_waiting_call, an_attempt, perform, reconfigure
from tests.test_engine import drive_to_the_end
from tools import registry
from tools.base import Result as ToolResult
from tools.base import ToolContext, tool

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("faults")]


def in_a_thread(act: Callable[[], object]) -> threading.Thread:
    """Act as another worker would, with a database connection of its own."""

    def acted() -> None:
        try:
            act()
        finally:
            connections.close_all()

    thread = threading.Thread(target=acted, daemon=True)
    thread.start()
    return thread


def ended_in_time(thread: threading.Thread) -> bool:
    thread.join(20)
    return not thread.is_alive()


def the(run: Run) -> Run:
    """The run as its rows are now; they agree with each other."""
    found = Run.objects.get(pk=run.pk)
    assert contradictions(found) == []
    return found


def kinds(run: Run) -> list[str]:
    return list(run.events.order_by("seq").values_list("kind", flat=True))


def requests() -> list[dict[str, Any]]:
    """What the simulator of this process was asked."""
    return [body for simulator in model._simulators for body in simulator.requests]


# ---------------------------------------------------------------- cancel


def test_cancel_ends_a_run_in_the_middle_of_a_stream(faults: Callable[[str], None]) -> None:
    faults("1: stall 8 seconds=300")
    run = a_run()
    lease = a_lease(run)
    driver = in_a_thread(lambda: drive(lease, lambda: False))
    eventually(lambda: Step.objects.exclude(draft="").filter(run=run, status=StepStatus.RUNNING).exists())
    actions.cancel_run(run_id=run.pk, actor="olga")
    assert ended_in_time(driver), "the driver still listens to a stream that nobody needs"
    run = the(run)
    turn = run.steps.get()
    assert (run.status, run.explanation) == (RunStatus.CANCELLED, "Cancelled by olga.")
    assert (turn.status, turn.error_kind, turn.draft) == (StepStatus.FAILED, "run_ended", "")
    assert turn.usage_estimated and turn.output_tokens > 0
    assert turn.cost_usd == run.cost_usd > Decimal(0)
    assert kinds(run)[-2:] == ["model.failed", "run.cancelled"]


@pytest.mark.parametrize(("effect", "status"), [("read", "refused"), ("write", "unknown")])
def test_cancel_ends_a_run_while_a_tool_hangs_and_its_late_result_is_dropped(
    monkeypatch: pytest.MonkeyPatch, effect: Any, status: str
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    @tool(effect=effect, idempotency="none", describe=lambda _: "Hang")
    def hang(context: ToolContext) -> ToolResult:
        """Hang until the test lets go."""
        begun.set()
        let_go.wait(20)
        return ToolResult(summary="Too late.", data={})

    monkeypatch.setitem(registry.TOOLS, hang.name, hang)
    run = a_run()
    configuration = json.loads(run.config)
    configuration["tools"].append(hang.definition())
    reconfigure(run, configuration)
    lease = a_lease(run)
    (call,) = a_turn(lease, ("hang", effect, {}))
    driver = in_a_thread(lambda: drive(lease, lambda: False))
    assert begun.wait(20)
    actions.cancel_run(run_id=run.pk, actor="olga")
    assert the(run).status == RunStatus.CANCELLED
    let_go.set()
    assert ended_in_time(driver)
    call.refresh_from_db()
    assert call.status == status and "Too late" not in call.result
    assert the(run).status == RunStatus.CANCELLED


def test_cancel_withdraws_what_a_person_was_asked(operator: User) -> None:
    _, step, approval = a_waiting_call()
    actions.cancel_run(run_id=step.run_id, actor="olga")
    run = the(step.run)
    approval.refresh_from_db()
    step.refresh_from_db()
    assert (run.status, approval.state) == (RunStatus.CANCELLED, ApprovalState.CANCELLED)
    assert (step.status, step.error_kind) == (StepStatus.REFUSED, "cancelled")
    with pytest.raises(ActionError):
        actions.decide(
            approval_id=approval.pk, voter=operator, verdict="approve", revision=1, digest=approval.digest
        )
    with pytest.raises(ActionError, match="ended already: it is cancelled"):
        actions.cancel_run(run_id=run.pk, actor="olga")
    assert actions.claim(run.pk, "worker-2") is None


def test_what_a_driver_still_wants_to_write_after_a_cancel_is_void() -> None:
    run = a_run()
    lease = a_lease(run)
    attempt = an_attempt(lease)
    actions.cancel_run(run_id=run.pk, actor="olga")
    assert actions.still_held([lease]) == set()
    with pytest.raises(actions.LeaseLost):
        actions.save_draft(lease, attempt, "more")
    with pytest.raises(actions.LeaseLost):
        actions.end_run(lease, status=RunStatus.SUCCEEDED)
    assert the(run).status == RunStatus.CANCELLED


# ------------------------------------------------------- pause and resume


def test_a_run_that_nobody_drives_is_paused_at_once_and_goes_on_after(operator: User) -> None:
    run = a_run()
    assert actions.pause_run(run_id=run.pk, actor="olga")
    assert actions.claim(run.pk, "worker-1") is None
    assert (the(run).status, the(run).explanation) == (RunStatus.PAUSED, "Paused by olga.")
    with pytest.raises(ActionError, match="this one is paused"):
        actions.pause_run(run_id=run.pk, actor="olga")
    actions.resume_run(run_id=run.pk, actor="olga")
    assert drive_to_the_end(run, operator).status == RunStatus.SUCCEEDED


def test_a_driver_pauses_before_its_next_move_wherever_that_is(operator: User) -> None:
    run = a_run()
    while True:
        lease = a_lease(run)
        if the(run).step_count:  # there is something to pause: then before every single move
            assert not actions.pause_run(run_id=run.pk, actor="olga")
            with pytest.raises(ActionError, match="asked for a pause already"):
                actions.pause_run(run_id=run.pk, actor="dana")
            assert not perform(lease)
            if the(run).is_ended:
                break
            actions.resume_run(run_id=run.pk, actor="olga")
            lease = a_lease(run)
        perform(lease)
        for approval in Approval.objects.filter(run=run, state=ApprovalState.PENDING):
            actions.decide(
                approval_id=approval.pk,
                voter=operator,
                verdict="approve",
                revision=1,
                digest=approval.digest,
            )
        if the(run).status == RunStatus.RUNNING:
            actions.hand_back(lease)
    run = the(run)
    assert run.status == RunStatus.SUCCEEDED and kinds(run).count("run.paused") > 5
    assert not run.steps.filter(status=StepStatus.FAILED).exists()


def test_a_pause_can_be_taken_back_before_it_comes() -> None:
    run = a_run()
    lease = a_lease(run)
    actions.pause_run(run_id=run.pk, actor="olga")
    actions.resume_run(run_id=run.pk, actor="olga")
    assert perform(lease)
    assert the(run).status == RunStatus.RUNNING
    assert [kind for kind in kinds(run) if "pause" in kind or "resume" in kind] == [
        "run.pause_asked",
        "run.resumed",
    ]


def test_a_person_may_decide_while_the_run_is_paused_and_it_stays_paused(operator: User) -> None:
    _, step, approval = a_waiting_call()
    assert actions.pause_run(run_id=step.run_id, actor="olga")
    actions.decide(
        approval_id=approval.pk, voter=operator, verdict="reject", revision=1, digest=approval.digest
    )
    assert the(step.run).status == RunStatus.PAUSED
    actions.resume_run(run_id=step.run_id, actor="olga")
    assert drive_to_the_end(step.run, operator).status == RunStatus.SUCCEEDED


# ------------------------------------------------------------------ retry


@pytest.mark.parametrize("script", ["2: refusal", "2: stop_reason novel", "2: status 401", "2-7: status 529"])
def test_a_failed_run_goes_on_from_its_last_good_step(
    faults: Callable[[str], None], operator: User, script: str
) -> None:
    faults(script)
    run = drive_to_the_end(a_run(), operator)
    assert run.status == RunStatus.FAILED
    good = json.dumps(requests()[-1]["messages"])
    before, cost = run.step_count, run.cost_usd
    actions.retry_run(run_id=run.pk, actor="olga")
    assert the(run).status == RunStatus.QUEUED
    seen = len(requests())
    run = drive_to_the_end(run, operator)
    assert (the(run).status, run.steps.get(seq=before + 1).name) == (RunStatus.SUCCEEDED, "retried")
    assert json.dumps(requests()[seen]["messages"]) == good, "what failed is not said again"
    assert run.cost_usd > cost


def test_a_stopped_run_goes_on_with_a_higher_limit(
    faults: Callable[[str], None], operator: User, settings: Settings
) -> None:
    run = a_run()
    configuration = json.loads(run.config)
    configuration["limits"] = Limits(steps=6).as_data()
    reconfigure(run, configuration)
    run = drive_to_the_end(run, operator)
    assert (run.status, run.reason) == (RunStatus.STOPPED, "steps")
    for limits, words in [
        ({}, "stop again at its limit steps 6"),
        ({"steps": "6"}, "is 6 already"),
        ({"steps": "many"}, "a whole number"),
        ({"steps": "60.5"}, "a whole number"),
        ({"steps": "1_00"}, "cannot be “1_00”. Give a whole number"),
        ({"steps": "٧٠"}, "cannot be “٧٠”"),
        ({"cost_usd": "NaN"}, "an amount in USD"),
        ({"patience": "5"}, "There is no limit “patience”"),
    ]:
        with pytest.raises(ActionError, match=words):
            actions.retry_run(run_id=run.pk, actor="olga", limits=limits)
    frozen = Run.objects.get(pk=run.pk).config
    actions.retry_run(run_id=run.pk, actor="olga", limits={"steps": "70", "cost_usd": "5.50"})
    run = drive_to_the_end(run, operator)
    assert the(run).status == RunStatus.SUCCEEDED and run.config == frozen
    assert run.frozen["limits"]["steps"] == 70 and run.frozen["limits"]["cost_usd"] == "5.50"
    (event,) = [event for event in run.events.all() if event.kind == "run.retried"]
    assert event.fields["limits"]["steps"] == {"old": 6, "new": 70}


def test_what_still_goes_on_or_went_well_is_not_retried(operator: User) -> None:
    run = a_run()
    with pytest.raises(ActionError, match="this one is queued"):
        actions.retry_run(run_id=run.pk, actor="olga")


# ------------------------------------------------- follow-up and fork


def test_a_follow_up_question_knows_everything_and_costs_only_itself(operator: User) -> None:
    run = drive_to_the_end(a_run(), operator)
    before = [json.dumps(message) for message in requests()[-1]["messages"]]
    seen = len(requests())
    asked = actions.ask_follow_up(
        run_id=run.pk, actor="olga", user=operator, question="Which deployment was it?"
    )
    assert the(asked).cost_usd == 0 and the(asked).total_tokens == 0
    asked = drive_to_the_end(asked, operator)
    assert the(asked).status == RunStatus.SUCCEEDED and asked.final_response
    assert asked.parent_run_id == run.pk and asked.user_query == "Which deployment was it?"
    first = requests()[seen]
    assert [json.dumps(message) for message in first["messages"]][: len(before)] == before
    assert first["messages"][-1]["content"][-1]["text"] == "Which deployment was it?"
    assert requests()[0]["system"] == first["system"] and requests()[0]["tools"] == first["tools"]
    assert Decimal(0) < asked.cost_usd < run.cost_usd
    assert kinds(the(run))[-1] == "run.follow_up" and the(run).status == RunStatus.SUCCEEDED
    with pytest.raises(actions.InvalidQuestion):
        actions.ask_follow_up(run_id=run.pk, actor="olga", user=operator, question=" ")


def test_a_fork_replays_the_same_bytes_up_to_its_step_and_then_the_instruction(operator: User) -> None:
    run = drive_to_the_end(a_run(), operator)
    bodies = requests()
    turns = list(run.steps.filter(kind=StepKind.MODEL, status=StepStatus.SUCCEEDED).order_by("seq"))
    call = turns[1].children.first()
    assert call is not None
    fork = actions.fork_run(
        run_id=run.pk, actor="olga", user=operator, step=call.seq, instruction="Do not change production."
    )
    assert fork.copied_steps == max(turns[1].children.values_list("seq", flat=True))
    copied = list(fork.steps.order_by("seq"))[:-1]
    for old, new in zip(run.steps.order_by("seq"), copied, strict=False):
        for name in ("seq", "kind", "status", "message", "arguments", "result", "tool_use_id", "evidence_id"):
            assert getattr(old, name) == getattr(new, name)
        assert new.cost_usd is None and new.total_tokens == 0
    drive_to_the_end(fork, operator, "reject")
    assert the(fork).status == RunStatus.SUCCEEDED
    first = next(body for body in requests()[len(bodies) :])
    expected = json.loads(json.dumps(bodies[2]["messages"]))
    expected[-1]["content"].append({"type": "text", "text": "Do not change production."})
    assert json.dumps(first["messages"]) == json.dumps(expected)
    assert json.loads(fork.config)["world"] == json.loads(run.config)["world"]
    assert fork.frozen["limits"]["steps"] == run.frozen["limits"]["steps"] + fork.copied_steps


def test_a_form_that_is_sent_twice_makes_one_fork_and_one_follow_up(client: Client, operator: User) -> None:
    run = drive_to_the_end(a_run(), operator)
    client.force_login(operator)
    forms = [
        (reverse("run-fork", args=[run.request_id]), {"step": "1", "instruction": "Look at the disk first."}),
        (reverse("run-ask", args=[run.request_id]), {"question": "Which deployment was it?"}),
    ]
    for path, form in forms:
        sent = [client.post(path, form).headers["Location"] for _ in range(2)]
        assert sent[0] == sent[1] and sent[0] != run.get_absolute_url()
    assert run.forks.count() == 2


def test_a_fork_starts_at_a_complete_step_only() -> None:
    _, step, _ = a_waiting_call()
    fork: Callable[[int], Run] = lambda seq: actions.fork_run(  # noqa: E731
        run_id=step.run_id, actor="olga", user=None, step=seq, instruction="Look again."
    )
    with pytest.raises(ActionError, match="Step 1 is not complete"):
        fork(1)
    with pytest.raises(ActionError, match=r"no step 9. This run has 2"):
        fork(9)
    with pytest.raises(ActionError, match="has not ended yet"):
        actions.ask_follow_up(run_id=step.run_id, actor="olga", user=None, question="Why?")
    run = a_run()
    actions.cancel_run(run_id=run.pk, actor="olga")
    with pytest.raises(ActionError, match="never answered"):
        actions.ask_follow_up(run_id=run.pk, actor="olga", user=None, question="Why?")


def test_a_fork_of_a_run_that_was_wrapped_up_may_work_again(operator: User) -> None:
    run = a_run()
    configuration = json.loads(run.config)
    configuration["limits"] = Limits(steps=6).as_data()
    reconfigure(run, configuration)
    run = drive_to_the_end(run, operator)
    assert run.status == RunStatus.STOPPED
    asked = actions.ask_follow_up(run_id=run.pk, actor="olga", user=operator, question="What did you see?")
    assert requests()[-1]["tool_choice"] == {"type": "none"}
    seen = len(requests())
    drive_to_the_end(asked, operator)
    assert requests()[seen]["tool_choice"] == {"type": "auto"}
    assert the(asked).is_ended


# ---------------------------------------------------------- pages, command


def test_the_page_offers_what_applies_to_whoever_may(client: Client, operator: User, viewer: User) -> None:
    run = a_run()
    address = run.get_absolute_url()
    client.force_login(viewer)
    assert "Cancel the run" not in client.get(address).content.decode()
    for verb in ("cancel", "pause", "resume", "retry", "fork", "ask"):
        assert client.get(address + verb).status_code == 405
        assert b"may look but not start" in client.post(address + verb, follow=True).content
        assert client.post(f"/runs/6a0b1c2d-0000-4000-8000-000000000000/{verb}").status_code == 404
    client.force_login(operator)
    html = client.get(address).content.decode()
    assert "Cancel the run" in html and ">Pause</button>" in html
    assert "Retry" not in html and "follow-up" not in html and ">Fork<" not in html
    lease = a_lease(run)
    assert b"pauses after its current move" in client.post(address + "pause", follow=True).content
    assert "olga asked for a pause" in client.get(address).content.decode()
    a_turn(lease, text="It is the pool.")
    assert b"step to fork" in client.post(address + "fork", {"step": "x"}, follow=True).content
    assert b"The run is cancelled" in client.post(address + "cancel", follow=True).content
    html = client.get(address).content.decode()
    assert "Cancel the run" not in html and "Ask a follow-up" in html and ">Fork<" in html
    assert "Cancelled by olga." in html


def test_the_pages_of_a_run_and_its_forks_lead_to_each_other(client: Client, operator: User) -> None:
    run = a_run()
    lease = a_lease(run)
    a_turn(lease, text="It is the pool.")
    actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="It is the pool.")
    client.force_login(operator)
    shown = client.post(run.get_absolute_url() + "ask", {"question": "<b>Sure?</b>"}, follow=True)
    new = Run.objects.get(parent_run=run)
    assert shown.redirect_chain == [(new.get_absolute_url(), 302)]
    html = shown.content.decode()
    assert f"of run {run.pk}" in html and "&lt;b&gt;Sure?" in html and "<b>Sure" not in html
    assert f"continued in run {new.pk}" in client.get(run.get_absolute_url()).content.decode()
    empty = client.post(run.get_absolute_url() + "ask", {"question": " "}, follow=True)
    assert "Write what you want to know about this run." in empty.content.decode()
    empty = client.post(run.get_absolute_url() + "fork", {"step": "1", "instruction": ""}, follow=True)
    assert "Write what the agent should do differently from there." in empty.content.decode()
    forked = client.post(run.get_absolute_url() + "fork", {"step": "1", "instruction": "Again."}, follow=True)
    assert forked.status_code == 200 and Run.objects.filter(parent_run=run).count() == 2


def test_a_run_stopped_by_a_limit_is_retried_on_its_page(client: Client, operator: User) -> None:
    run = a_run()
    actions.end_run(a_lease(run), status=RunStatus.STOPPED, reason="cost_usd", explanation="No money left.")
    client.force_login(operator)
    address = run.get_absolute_url()
    assert "above 2.00" in client.get(address).content.decode()
    assert b"Give a higher one" in client.post(address + "retry", {"value": "1"}, follow=True).content
    assert b"goes on as soon as" in client.post(address + "retry", {"value": "4"}, follow=True).content
    assert the(run).frozen["limits"]["cost_usd"] == "4" and the(run).status == RunStatus.QUEUED
    assert "of $4" in client.get(address).content.decode()


def test_a_value_for_a_pause_that_is_no_limit_is_refused_in_words(client: Client, operator: User) -> None:
    run = a_run()
    actions.pause_run(run_id=run.pk, actor="olga")
    client.force_login(operator)
    said = client.post(run.get_absolute_url() + "resume", {"value": "5"}, follow=True).content.decode()
    assert "It is no limit that holds this run, so there is none to raise." in said
    assert the(run).status == RunStatus.PAUSED
    client.post(run.get_absolute_url() + "resume")
    assert the(run).status == RunStatus.QUEUED


def say(*arguments: str) -> str:
    """What the command prints."""
    out = StringIO()
    call_command("controlrun", *arguments, stdout=out)
    return out.getvalue().strip()


def test_the_command_steers_a_run_in_clear_sentences(operator: User) -> None:
    run = a_run()
    name = str(run.request_id)
    assert say("pause", name) == "The run is paused."
    assert say("resume", name) == "The run goes on as soon as a worker is free."
    lease = a_lease(run)
    assert say("pause", name) == "The run pauses after its current move."
    a_turn(lease, text="It is the pool.")
    assert "goes on from step 1" in say("fork", name, "--step", "1", "Look at the disk.")
    assert say("cancel", name) == "The run is cancelled."
    assert "answers as soon as" in say("ask", name, "Why?")
    with pytest.raises(CommandError, match="Only a failed or stopped run"):
        say("retry", name)
    stopped = a_run()
    actions.end_run(a_lease(stopped), status=RunStatus.STOPPED, reason="tokens", explanation="Too many.")
    with pytest.raises(CommandError, match="cannot be read") as error:
        say("retry", str(stopped.request_id), "--limit", "tokens")
    assert error.value.returncode == 2
    assert "goes on" in say("retry", str(stopped.request_id), "--limit", "tokens=900000")
    with pytest.raises(CommandError, match="is not a request id"):
        say("cancel", "soon")
    with pytest.raises(CommandError, match="There is no run"):
        say("cancel", "6a0b1c2d-0000-4000-8000-000000000000")
