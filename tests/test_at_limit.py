"""At a limit a run wraps up, or pauses and asks; a person raises the limit, and the run goes on."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from runs import actions
from runs.actions import ActionError
from runs.agents import Agent, Limits
from runs.models import Budget, BudgetChange, Run, RunStatus, StepKind
from tests.conftest import Installation, eventually, wait_for_line
from tests.factories import a_charge, a_lease, a_run, a_turn, perform, reconfigure
from tests.test_budgets import a_budget, an_attempt_of, kinds, the_ledger
from tests.test_engine import drive_to_the_end

in_database = pytest.mark.django_db(transaction=True)
pytestmark = pytest.mark.usefixtures("faults")


def a_run_with(at_limit: str | None = "pause", **limits: Any) -> Run:
    """A run with these limits of its own. None: its frozen text is from before there was a choice."""
    run = a_run()
    configuration = json.loads(run.config)
    configuration["limits"] = Limits(**limits).as_data()
    configuration["at_limit"] = at_limit
    if at_limit is None:
        del configuration["at_limit"]
    reconfigure(run, configuration)
    run.refresh_from_db()
    return run


# ----------------------------------------------------- limits of one run


@in_database
def test_a_run_pauses_at_its_limit_and_goes_on_when_its_page_raises_it(
    client: Client, operator: User
) -> None:
    run = drive_to_the_end(a_run_with(steps=6), operator)
    assert (run.status, run.reason) == (RunStatus.PAUSED, "steps")
    assert "limit of 6 steps is reached. Raise it" in run.explanation
    before = run.step_count
    client.force_login(operator)
    address = run.get_absolute_url()
    assert "New limit for steps, above 6" in client.get(address).content.decode()
    answer = client.post(f"{address}resume", {"value": ""}, follow=True).content.decode()
    assert "It would pause again at its limit steps 6. Give a higher one." in answer
    client.post(f"{address}resume", {"value": "70"})
    run = drive_to_the_end(run, operator)
    assert run.status == RunStatus.SUCCEEDED and run.step_count > before
    (resumed,) = [event for event in run.events.all() if event.kind == "run.resumed"]
    assert (resumed.actor, resumed.fields["limits"]) == ("olga", {"steps": {"old": 6, "new": 70}})
    assert not run.steps.filter(name__startswith="wrap_up").exists()


@in_database
def test_the_command_raises_a_limit_and_resumes(operator: User) -> None:
    run = drive_to_the_end(a_run_with(steps=6), operator)
    with pytest.raises(CommandError, match="would pause again"):
        call_command("controlrun", "resume", str(run.request_id))
    call_command("controlrun", "resume", str(run.request_id), "--limit", "steps=70", stdout=StringIO())
    assert drive_to_the_end(run, operator).status == RunStatus.SUCCEEDED


@in_database
def test_a_run_from_before_there_was_a_choice_wraps_up(operator: User) -> None:
    run = drive_to_the_end(a_run_with(at_limit=None, steps=6), operator)
    assert (run.status, run.reason) == (RunStatus.STOPPED, "steps")


# ---------------------------------------------------------- shared budgets


@pytest.fixture
def treasurer(operator: User) -> User:
    operator.user_permissions.add(Permission.objects.get(codename="budget"))
    return User.objects.get(pk=operator.pk)


@in_database
def test_a_run_paused_by_a_budget_goes_on_when_the_budgets_page_raises_it(
    client: Client, treasurer: User
) -> None:
    client.force_login(treasurer)
    sent = {"scope": "installation", "period": "month", "tool": "", "cost_usd": "0.02", "at_limit": "pause"}
    client.post("/budgets/set", sent)
    other = a_budget(period="day", tool_calls="0", at_limit="pause")
    second = drive_to_the_end(a_run("paused by the other one"), treasurer)
    assert second.reason == other.reason
    actions.set_budget(actor="olga", scope="installation", period="day", limits={"tool_calls": "400"})
    run = drive_to_the_end(a_run(), treasurer)
    budget = Budget.objects.get(period="month")
    assert (run.status, run.reason) == (RunStatus.PAUSED, budget.reason)
    assert "does not fit into the budget installation per month" in run.explanation
    assert f'href="/budgets/{budget.pk}/"' in client.get(run.get_absolute_url()).content.decode()
    assert f"run {run.pk}</a>" in client.get("/budgets/").content.decode()
    with pytest.raises(ActionError, match="It would pause again: the budget"):
        actions.resume_run(run_id=run.pk, actor="olga")
    asked = a_run("a person paused this one")
    actions.pause_run(run_id=asked.pk, actor="dana")

    client.post("/budgets/set", sent | {"cost_usd": "20"})
    run.refresh_from_db()
    asked.refresh_from_db()
    assert (run.status, asked.status) == (RunStatus.QUEUED, RunStatus.PAUSED)
    assert kinds(run)[-2:] == ["run.paused", "run.resumed"] and run.events.last().actor == "olga"  # type: ignore[union-attr]
    assert drive_to_the_end(run, treasurer).status == RunStatus.SUCCEEDED
    assert the_ledger(budget).cost_usd == run.cost_usd
    html = client.get("/budgets/").content.decode()
    assert "$0.02, pause, tell at 50, 80, 100 %" in html and "$20, pause" in html and "olga" in html
    first, *_ = BudgetChange.objects.filter(budget=budget.pk)
    assert (first.actor, json.loads(first.before)["cost_usd"], json.loads(first.after)["cost_usd"]) == (
        "olga",
        "0.02",
        "20",
    )


@in_database
def test_the_beginning_of_a_period_lets_its_runs_go_on_and_no_others(operator: User) -> None:
    day = a_budget(period="day", tokens="100", at_limit="pause")
    today = drive_to_the_end(a_run(), operator)
    assert today.reason == day.reason and today.retry_at is not None
    assert timezone.now() < today.retry_at <= timezone.now() + timedelta(days=1)
    month = a_budget(tokens="50", at_limit="pause")
    actions.set_budget(
        actor="o", scope="installation", period="day", limits={"tokens": "200"}, at_limit="pause"
    )
    drive_to_the_end(today, operator)
    longer = drive_to_the_end(a_run("another"), operator)
    Run.objects.filter(pk=longer.pk).update(reason=month.reason, retry_at=timezone.now() + timedelta(days=9))
    Run.objects.filter(pk=today.pk).update(reason=day.reason, retry_at=timezone.now())
    assert actions.resume_after_budgets(timezone.now()) == 1
    today.refresh_from_db()
    assert today.status == RunStatus.QUEUED and today.events.last().actor == "calendar"  # type: ignore[union-attr]
    assert Run.objects.get(pk=longer.pk).status == RunStatus.PAUSED


@in_database
def test_a_budget_that_is_removed_or_raised_at_the_same_moment_pauses_nobody() -> None:
    budget = a_budget(tokens="100", at_limit="pause")
    lease = a_lease(a_run())
    actions.set_budget(
        actor="o", scope="installation", period="month", limits={"tokens": "150"}, at_limit="pause"
    )
    paused = {"budget_id": budget.pk, "reason": budget.reason, "explanation": "Full.", "until": None}
    assert not actions.pause_at_budget(lease, revision=1, **paused)  # type: ignore[arg-type]
    actions.remove_budget(budget_id=budget.pk, actor="o")
    assert not actions.pause_at_budget(lease, revision=2, **paused)  # type: ignore[arg-type]
    assert Run.objects.get().status == RunStatus.RUNNING
    assert BudgetChange.objects.all()[0].after == ""


@in_database
def test_a_run_that_a_budget_stopped_is_retried_when_the_budget_is_raised(operator: User) -> None:
    budget = a_budget(tokens="100")
    run = drive_to_the_end(a_run(), operator)
    assert (run.status, run.reason) == (RunStatus.STOPPED, budget.reason)
    with pytest.raises(ActionError, match="the budget installation per month is used up"):
        actions.retry_run(run_id=run.pk, actor="olga")
    a_budget(tokens="90000000")
    actions.retry_run(run_id=run.pk, actor="olga")
    assert drive_to_the_end(run, operator).status == RunStatus.SUCCEEDED


@in_database
def test_a_run_that_is_paused_after_its_worker_died_holds_nothing_back(operator: User) -> None:
    budget = a_budget(tokens="9000000")
    lease = a_lease(a_run())
    an_attempt_of(lease, 5_000, "0.25")
    Run.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert actions.pause_run(run_id=lease.run_id, actor="olga")
    ledger = the_ledger(budget)
    assert (ledger.reserved_tokens, ledger.tokens) == (0, 5_000)
    actions.resume_run(run_id=lease.run_id, actor="olga")
    assert drive_to_the_end(Run.objects.get(), operator).status == RunStatus.SUCCEEDED


@in_database
def test_a_run_waits_for_calls_of_others_that_hold_the_rest_of_a_budget(operator: User) -> None:
    budget = a_budget(tokens="400000")
    other = a_lease(a_run("another"))
    step = an_attempt_of(other, 390_000, None)
    run = a_run()
    assert not perform(a_lease(run))
    run.refresh_from_db()
    assert (run.status, run.reason) == (RunStatus.QUEUED, budget.reason) and run.retry_at is not None
    assert "Calls of other runs hold the rest of it" in run.explanation
    actions.fail_attempt(other, step, action="retry", kind="x", sentence="x", charge=a_charge())
    assert drive_to_the_end(run, operator).status == RunStatus.SUCCEEDED


@in_database
def test_a_run_whose_model_has_no_price_pauses_under_a_budget_in_usd(operator: User) -> None:
    budget = a_budget(cost_usd="50")
    run = a_run()
    configuration = json.loads(run.config) | {"model": "claude-nobody-knows"}
    reconfigure(run, configuration)
    run = drive_to_the_end(run, operator)
    assert (run.status, run.reason) == (RunStatus.PAUSED, f"{budget.reason}_unpriced")
    assert "Upgrade genai-prices" in run.explanation and run.retry_at is None
    a_budget(tokens="90000000")  # the limit in USD is gone
    run.refresh_from_db()
    assert run.status == RunStatus.QUEUED
    assert drive_to_the_end(run, operator).steps.filter(kind=StepKind.MODEL).exists()


# ------------------------------------------------------------- tool calls


@in_database
def test_calls_beyond_the_budget_of_a_tool_are_refused_and_the_model_is_told(operator: User) -> None:
    budget = a_budget(tool="search_logs", tool_calls="1")
    run = drive_to_the_end(a_run(), operator)
    first, *others = run.steps.filter(name="search_logs").order_by("seq")
    assert run.is_ended and first.status == "succeeded" and others
    assert {(step.status, step.error_kind) for step in others} == {("refused", "limit")}
    assert "budget of 1 calls of search_logs" in others[0].result and "go on without it" in others[0].result
    assert the_ledger(budget).tool_calls == 1


@in_database
def test_under_pause_a_call_waits_until_the_budget_of_its_tool_is_raised(operator: User) -> None:
    a_budget(tool="get_metrics", tool_calls="1", at_limit="pause")
    run = a_run()
    lease = a_lease(run)
    looks = [{"service_name": "api", "metric": metric} for metric in ("error_rate", "db_pool_in_use")]
    one, two = a_turn(lease, *(("get_metrics", "read", look) for look in looks))
    assert not perform(lease)
    run.refresh_from_db()
    assert run.status == RunStatus.PAUSED and "next 2 calls of get_metrics do not fit" in run.explanation
    a_budget(tool="get_metrics", tool_calls="50", at_limit="pause")
    drive_to_the_end(run, operator)
    for step in (one, two):
        step.refresh_from_db()
        assert step.status == "succeeded" and step.counted_at is not None


# --------------------------------------------------------- page and command


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({}, "Give at least one limit"),
        ({"cost_usd": "many"}, "“many” cannot be a limit on cost. Give an amount in USD"),
        ({"cost_usd": "1_0"}, "“1_0” cannot be a limit on cost"),
        ({"tokens": "٥٠٠"}, "“٥٠٠” cannot be a limit on tokens"),
        ({"tokens": "1e6"}, "“1e6” cannot be a limit on tokens"),
        ({"tokens": "1.5"}, "Give a whole number"),
        ({"tokens": "-1"}, "Give a whole number"),
        ({"tool": "search_logs", "cost_usd": "5"}, "limits the number of its calls"),
        ({"tool": "rm", "tool_calls": "5"}, "There is no tool “rm”."),
        ({"scope": "agent", "subject": "nobody", "tokens": "5"}, "There is no agent “nobody”."),
        ({"scope": "agent", "tokens": "5"}, "Name the agent of a budget for one agent"),
        ({"subject": "incident", "tokens": "5"}, "The installation has no name"),
        ({"scope": "user", "subject": "nobody", "tokens": "5"}, "There is no user “nobody”."),
        ({"scope": "tag", "subject": "no spaces", "tokens": "5"}, "A tag has up to 40 letters"),
        ({"at_limit": "notify", "thresholds": "", "tokens": "5"}, "has to say when"),
        ({"thresholds": "80, many", "tokens": "5"}, "cannot say when to notify"),
        ({"thresholds": "0", "tokens": "5"}, "percents from 1 to 500"),
        ({"period": "year", "tokens": "5"}, "a day, a week or a month"),
        ({"at_limit": "explode", "tokens": "5"}, "Choose what happens at the limit"),
    ],
)
def test_a_form_that_makes_no_sense_says_what_to_do_and_keeps_what_was_sent(
    client: Client, treasurer: User, sent: dict[str, str], words: str
) -> None:
    client.force_login(treasurer)
    answer = client.post("/budgets/set", {"period": "month"} | sent)
    assert answer.status_code == 422 and words in answer.content.decode()
    assert Budget.objects.count() == BudgetChange.objects.count() == 0
    if "cost_usd" in sent:
        assert f'value="{sent["cost_usd"]}"' in answer.content.decode()


@pytest.mark.django_db
def test_who_may_not_set_budgets_sees_them_and_no_form(client: Client, operator: User) -> None:
    budget = a_budget(cost_usd="5")
    client.force_login(operator)
    html = client.get("/budgets/").content.decode()
    assert "installation per month" in html and "permission “budget”" in html
    assert "<form" not in html.split('id="main"')[1].split("</main>")[0]
    assert client.post("/budgets/set", {"period": "day", "tokens": "5"}).status_code == 403
    assert client.post(f"/budgets/{budget.pk}/remove").status_code == 403
    assert Budget.objects.count() == 1


@pytest.mark.django_db
def test_the_command_sets_lists_and_removes() -> None:
    def said(*arguments: str) -> str:
        out = StringIO()
        call_command("budget", *arguments, stdout=out)
        return out.getvalue()

    assert "There are no budgets" in said("list")
    text = said("set", "--agent", "incident", "--period", "day", "--cost-usd", "20", "--at-limit", "pause")
    assert text == "incident per day: cost $0 of $20.00; at the limit pause and ask\n"
    with pytest.raises(CommandError, match="no such budget"):
        said("remove", "--period", "day")
    assert "is removed" in said("remove", "--agent", "incident", "--period", "day")


def test_an_agent_freezes_its_choice_in_its_runs(settings: Settings) -> None:
    agent = Agent(name="a", description="", instructions="", tools=(), at_limit="pause")
    assert json.loads(agent.configuration(world="w"))["at_limit"] == "pause"


# -------------------------------------------------------------- real death


PREPARE = """
from django.core.management import call_command
from runs import actions
call_command("migrate", "-v0")
actions.set_budget(actor="o", scope="installation", period="month", limits={"tokens": "9000000"})
actions.start_run(question="Checkout is slow", agent="incident", user=None, started_by="alert")
"""


@pytest.mark.server
def test_a_reservation_outlives_its_worker_until_the_run_is_taken_over(tmp_path: Path) -> None:
    installation = Installation(tmp_path, AGENTOPS_LEASE_SECONDS="1")
    ledger = "SELECT reserved_tokens, tokens FROM runs_spending WHERE simulated"
    try:
        prepared = installation.command("shell", "-v0", "-c", PREPARE)
        assert prepared.returncode == 0, prepared.stderr
        worker = installation.start("worker", AGENTOPS_SIMULATOR_FAULTS="1: stall 8 seconds=300")
        wait_for_line(worker, "drives up to")
        eventually(lambda: installation.rows("SELECT 1 FROM runs_step WHERE length(draft) > 0"))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        ((reserved, used),) = installation.rows(ledger)
        assert reserved > 0 and used == 0
        wait_for_line(installation.start("worker"), "drives up to")
        eventually(lambda: installation.rows("SELECT 1 FROM runs_run WHERE status = 'succeeded'"), within=60)
        ((left, used),) = installation.rows(ledger)
        (total,) = installation.rows("SELECT sum(output_tokens) FROM runs_step WHERE status = 'succeeded'")[0]
        assert left == 0 and used > reserved + total, "the lost attempt counts with all it reserved"
        assert installation.command("checkruns").returncode == 0
    finally:
        installation.close()
