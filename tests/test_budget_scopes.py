"""Budgets of users and tags, by the week; tags that come and go; who is told of what, exactly once."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from runs import actions, messages
from runs.actions import BudgetUsedUp, Lease
from runs.models import (
    Budget,
    BudgetHold,
    BudgetNotice,
    NotificationChannel,
    NotificationDelivery,
    Run,
    RunStatus,
    RunTag,
    Spending,
    Step,
    StepKind,
)
from runs.models.budget import period_bounds, period_start
from runs.reading.budget_page import read_drawings, read_state
from runs.reading.budgets import ledger_contradictions, said
from runs.reading.forecast import forecast
from tests import budget_race
from tests.factories import a_charge, a_lease, a_run, a_turn
from tests.test_budgets import a_budget, an_attempt_of, in_threads
from tests.test_engine import drive_to_the_end

in_database = pytest.mark.django_db(transaction=True)
pytestmark = pytest.mark.usefixtures("faults")


def set_for(scope: str, period: str = "month", **values: str) -> Budget:
    """A budget of this scope; what is no limit says whose it is and what happens at it."""
    limits = {name: values.pop(name) for name in ("cost_usd", "tokens", "tool_calls") if name in values}
    return actions.set_budget(actor="dana", scope=scope, period=period, limits=limits, **values)  # type: ignore[arg-type]


def spend(lease: Lease) -> Decimal:
    """One call; what it cost."""
    step = an_attempt_of(lease, 5_000, "0.01")
    actions.fail_attempt(lease, step, action="retry", kind="x", sentence="x", charge=a_charge())
    step.refresh_from_db()
    return step.cost_usd or Decimal(0)


def ledger_of(budget: Budget) -> Spending:
    """Of the present period; every ledger agrees with the steps."""
    assert ledger_contradictions() == []
    starts_on = period_start(budget.period, timezone.now())
    return Spending.objects.get(budget=budget, simulated=True, starts_on=starts_on)


# ------------------------------------------------------------ periods


@pytest.mark.parametrize(
    ("moment", "monday"),
    [
        (datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC), date(2026, 11, 16)),  # a Sunday
        (datetime(2026, 11, 23, 0, 0, tzinfo=UTC), date(2026, 11, 23)),
        (datetime(2027, 1, 1, 12, tzinfo=UTC), date(2026, 12, 28)),  # week 53 of the year before
    ],
)
def test_a_week_begins_on_monday_at_midnight_utc(moment: datetime, monday: date) -> None:
    assert period_start("week", moment) == monday
    since, until = period_bounds("week", monday)
    assert since <= moment < until and until - since == timedelta(days=7)


# ------------------------------------------------------------ whose runs


@in_database
def test_the_budget_of_a_user_counts_the_runs_of_that_account_however_they_began(operator: User) -> None:
    budget = set_for("user", "week", user="olga", cost_usd="1")
    mine = a_lease(actions.start_run(question="Mine", agent="incident", user=operator, started_by="olga"))
    spent = spend(mine)
    # An alert that says olga is not olga's account.
    theirs = actions.start_run(question="Theirs", agent="incident", user=None, started_by="olga")
    spend(a_lease(theirs))
    assert ledger_of(budget).cost_usd == spent
    operator.username = "olga.b"
    operator.save()
    assert Budget.objects.get().title == "user olga.b per week"  # the same account, renamed
    spend(a_lease(actions.start_run(question="New", agent="incident", user=operator, started_by="olga.b")))
    assert ledger_of(budget).cost_usd == 2 * spent


@in_database
def test_a_run_begins_with_its_tags_and_hands_them_on(client: Client, operator: User) -> None:
    budget = set_for("tag", "day", tag="Checkout", cost_usd="5")
    client.force_login(operator)
    form = {"question": "Checkout is slow", "agent": "incident", "scenario": "", "tags": "Checkout,  night"}
    key = "3d6a0ae6-9d09-4ed0-8b0e-0a6a54a3c5b1"
    assert client.post("/runs/new", form | {"request_id": key, "tags": "-bad"}).status_code == 422
    client.post("/runs/new", form | {"request_id": key})
    run = Run.objects.get()
    assert [tag.name for tag in run.tags.all()] == ["checkout", "night"]
    assert run.events.get(seq=1).fields["tags"] == ["checkout", "night"]
    run = drive_to_the_end(run, operator)
    assert ledger_of(budget).cost_usd == run.cost_usd > 0
    more = actions.ask_follow_up(run_id=run.pk, actor="olga", user=operator, question="And now?")
    assert [tag.name for tag in more.tags.all()] == ["checkout", "night"]
    assert ledger_of(budget).cost_usd == run.cost_usd


@in_database
def test_what_a_run_used_moves_with_its_tag_in_every_period_and_in_bulk(
    client: Client, operator: User
) -> None:
    budget = set_for("tag", "day", tag="night", cost_usd="0.02", at_limit="pause")
    leases = [a_lease(a_run(f"pool {number}")) for number in range(3)]
    before = timezone.now() - timedelta(days=1)
    actions.open_ledgers(before)
    spend(leases[0])
    Step.objects.update(started_at=before)  # one call yesterday, three of today, one of them under way
    spent = [spend(lease) for lease in leases]
    held = an_attempt_of(leases[2], 9_000, "0.05")
    client.force_login(operator)
    sent = {"q": "", "act": "tag", "tag": "night", "count": "3"}
    assert client.post("/runs/bulk", sent).status_code == 302
    ledger = ledger_of(budget)
    assert (ledger.cost_usd, ledger.reserved_usd) == (sum(spent), Decimal("0.05"))
    yesterday = Spending.objects.get(budget=budget, simulated=True, starts_on=before.date())
    assert yesterday.cost_usd == spent[0]
    with pytest.raises(BudgetUsedUp):  # 3 × 0.003 and 0.05 under way: over the limit, by people
        an_attempt_of(leases[0], 100, "0.001")
    actions.fail_attempt(leases[2], held, action="retry", kind="x", sentence="x", charge=a_charge())
    assert ledger_of(budget).reserved_usd == 0
    client.post("/runs/bulk", sent | {"act": "untag"})
    assert ledger_of(budget).amounts == dict.fromkeys(ledger.amounts, 0)
    yesterday.refresh_from_db()
    assert yesterday.cost_usd == 0 and not RunTag.objects.exists()


@in_database
def test_runs_that_the_budget_of_a_tag_holds_back_go_on_when_the_tag_is_taken_off(operator: User) -> None:
    budget = set_for("tag", tag="night", tool_calls="1", at_limit="pause")
    first, second = a_run("first", tags=["night"]), a_run("second", tags=["night"])
    lease = a_lease(a_run("busy", tags=["night"]))
    (step,) = a_turn(lease, ("get_metrics", "read", {}))
    actions.allow_call(lease, step.seq, rule="reads")
    actions.start_call(lease, step.seq, tool_version=step.tool_version)
    for run in (first, second):
        assert drive_to_the_end(run, operator).reason == budget.reason
    assert set(BudgetHold.objects.values_list("run", flat=True)) == {first.pk, second.pk}
    actions.untag_run(run_id=first.pk, name="night", actor="olga")  # it shares the budget no more
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, second.status) == (RunStatus.QUEUED, RunStatus.PAUSED)
    actions.untag_run(run_id=lease.run_id, name="night", actor="olga")  # which makes room for the other
    second.refresh_from_db()
    assert second.status == RunStatus.QUEUED
    state = read_state(Budget.objects.get(), simulated=True, now=timezone.now())
    assert [(held.waits, held.until is not None) for held in state.held] == [(False, True)] * 2


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["call", "begin", "end", "lose", "tag", "untag", "tool", "age", "reopen", "bulk"]),
        st.integers(0, 2),
    ),
    max_size=14,
)


def by_hand(budget: Budget, ledger: Spending) -> tuple[int, Decimal, int, int, Decimal]:
    """What a ledger has to say, by a loop over all steps and nothing of the code that keeps it."""
    since, until = period_bounds(budget.period, ledger.starts_on)
    tokens, usd, calls, held, held_usd = 0, Decimal(0), 0, 0, Decimal(0)
    for step in Step.objects.filter(run__simulated=ledger.simulated).select_related("run"):
        tags = set(step.run.tags.values_list("name", flat=True))
        shares = {
            "installation": True,
            "agent": step.run.agent == budget.agent,
            "user": step.run.created_by_id == budget.user_id,
            "tag": budget.tag in tags,
        }
        if not shares[budget.scope]:
            continue
        if step.counted_at and since <= step.counted_at < until and budget.tool in {"", step.name}:
            calls += 1
        if budget.tool or step.kind != StepKind.MODEL or not since <= step.started_at < until:
            continue
        if step.ended_at is None:
            held, held_usd = held + step.reserved_tokens, held_usd + (step.reserved_usd or 0)
        elif step.usage_estimated:
            tokens += max(step.total_tokens, step.reserved_tokens)
            usd += max(step.cost_usd or Decimal(0), step.reserved_usd or Decimal(0))
        else:
            tokens, usd = tokens + step.total_tokens, usd + (step.cost_usd or 0)
    return tokens, usd, calls, held, held_usd


class Story:
    """Three runs of two people with what a story makes of them."""

    def __init__(self, users: list[User | None]) -> None:
        self.leases = [
            a_lease(actions.start_run(question=f"run {n}", agent="incident", user=user, started_by="x"))
            for n, user in enumerate(users)
        ]
        self.open: dict[int, Step] = {}

    def do(self, move: str, who: int) -> None:
        lease = self.leases[who]
        match move:
            case "call":
                spend(lease)
            case "begin" if who not in self.open:
                self.open[who] = an_attempt_of(lease, 3_000, "0.0123456789")
            case "end" | "lose" if who in self.open:
                charge = a_charge() if move == "end" else actions.Charge(a_charge().usage, None, True)
                step = self.open.pop(who)
                actions.fail_attempt(lease, step, action="retry", kind="x", sentence="x", charge=charge)
            case "tag" | "untag":
                act = actions.tag_run if move == "tag" else actions.untag_run
                act(run_id=lease.run_id, name="night", actor="olga")
            case "bulk":
                for one in self.leases:
                    actions.tag_run(run_id=one.run_id, name="night", actor="olga")
            case "tool":
                (step,) = a_turn(lease, ("get_metrics", "read", {}))
                actions.allow_call(lease, step.seq, rule="reads")
                actions.start_call(lease, step.seq, tool_version=step.tool_version)
            case "age":  # what this run did was yesterday, last week or last month
                past = timezone.now() - timedelta(days=(1, 8, 40)[who])
                Step.objects.filter(run=lease.run_id).update(started_at=past, counted_at=None)
                Spending.objects.all().delete()
                for moment in (timezone.now(), past):
                    actions.open_ledgers(moment)
            case "reopen":
                Spending.objects.all().delete()
                actions.open_ledgers()


@in_database
@bounded(
    max_examples=8, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
@given(moves=MOVES)
def test_ledgers_of_every_scope_say_what_the_steps_say_whatever_happens(
    operator: User, second_operator: User, moves: list[tuple[str, int]]
) -> None:
    Run.objects.update(simulated=False)  # those of the examples before
    for old in Budget.objects.all():
        actions.remove_budget(budget_id=old.pk, actor="o")
    for scope, period, values in (
        ("installation", "week", {"tokens": "90000000"}),
        ("agent", "day", {"agent": "incident", "tokens": "90000000"}),
        ("user", "month", {"user": "olga", "cost_usd": "900", "at_limit": "notify"}),
        ("tag", "week", {"tag": "night", "tokens": "90000000", "tool_calls": "900"}),
        ("tag", "day", {"tag": "night", "tool": "get_metrics", "tool_calls": "900"}),
        ("tag", "month", {"tag": "night", "tokens": "1", "at_limit": "notify"}),
    ):
        set_for(scope, period, **values)
    story = Story([operator, second_operator, None])
    for move, who in moves:
        story.do(move, who)
    assert ledger_contradictions() == []
    for ledger in Spending.objects.select_related("budget"):
        said = (
            ledger.tokens,
            ledger.cost_usd,
            ledger.tool_calls,
            ledger.reserved_tokens,
            ledger.reserved_usd,
        )
        assert said == by_hand(ledger.budget, ledger), (ledger.budget.title, ledger.starts_on, moves)


# ------------------------------------------------------------ soft, and told


def a_channel(name: str = "hook", **values: object) -> NotificationChannel:
    return NotificationChannel.objects.create(
        name=name, kind="json", url="https://example.com/", notices=["budget.reached"], changed_by="olga",
        changed_at=timezone.now(), **values,
    )  # fmt: skip


@in_database
def test_a_soft_budget_blocks_nothing_and_tells_at_each_threshold(operator: User) -> None:
    a_channel()
    a_channel("others", agents=["somebody else"])
    budget = a_budget("notify", cost_usd="0.02")
    run = drive_to_the_end(a_run(), operator)
    assert run.status == RunStatus.SUCCEEDED and run.cost_usd > Decimal("0.02")
    assert [notice.threshold for notice in BudgetNotice.objects.order_by("threshold")] == [50, 80, 100]
    assert not BudgetHold.objects.exists()
    told = list(NotificationDelivery.objects.order_by("pk"))
    assert {one.channel_name for one in told} == {"hook"} and told[-1].said["threshold"] == 100
    body = json.loads(messages.json_body(told[-1].notice, told[-1].said, "https://a.example"))
    assert body["title"] == "100 % used of the budget installation per month"
    assert "It only notifies" in body["text"] and body["data"]["link"].endswith(f"/budgets/{budget.pk}/")
    assert json.loads(messages.slack_body(told[-1].notice, told[-1].said, "https://a.example"))["blocks"]
    subject, text = messages.mail(told[-1].notice, told[-1].said, "")
    assert "installation per month" in subject and f"Crossed by run: {run.pk}" in text
    # Unpriced models and calls of tools are free under a soft budget as well.
    a_budget("notify", tool="search_logs", tool_calls="0")
    an_attempt_of(a_lease(a_run("again")), 5_000, None)


@in_database
def test_two_workers_that_cross_a_threshold_together_tell_it_once(operator: User) -> None:
    a_channel()
    budget = a_budget("notify", cost_usd="0.02")
    leases = [a_lease(a_run(f"run {number}")) for number in range(4)]

    def work(lease: Lease) -> None:
        for _ in range(4):
            spend(lease)

    in_threads([lambda lease=lease: work(lease) for lease in leases])  # type: ignore[misc]
    assert ledger_of(budget).cost_usd > Decimal("0.02")
    assert sorted(BudgetNotice.objects.values_list("threshold", flat=True)) == [50, 80, 100]
    said = [one.said["threshold"] for one in NotificationDelivery.objects.order_by("pk")]
    assert said == sorted(set(said)) and said[-1] == 100
    # Raised, it is another limit: what that reaches again is told again, and nothing else.
    a_budget("notify", cost_usd=str(ledger_of(budget).cost_usd * 2))
    assert ledger_of(budget).noticed == 50 and BudgetNotice.objects.count() == 3
    while ledger_of(budget).noticed == 50:
        spend(leases[0])
    assert BudgetNotice.objects.latest("pk").threshold == 80


@in_database
def test_a_hard_budget_without_room_is_told_as_full_although_something_is_left(operator: User) -> None:
    a_channel()
    budget = a_budget("pause", tokens="100")
    for number in range(2):
        drive_to_the_end(a_run(f"run {number}"), operator)
    (told,) = NotificationDelivery.objects.all()
    assert messages.title(told.notice, told.said) == "No room left in the budget installation per month"
    assert BudgetNotice.objects.get().was_full and BudgetHold.objects.filter(budget=budget).count() == 2
    quiet = a_budget("wrap_up", period="day", tokens="100")
    actions.set_budget(actor="o", scope="installation", period="day", limits={"tokens": "100"}, thresholds="")
    a_budget("pause", tokens="90000000")
    assert drive_to_the_end(a_run("another"), operator).status == RunStatus.STOPPED
    assert BudgetHold.objects.get(budget=quiet).at_limit == "wrap_up"
    assert NotificationDelivery.objects.count() == 1


# ------------------------------------------------------------ the page


def test_a_forecast_shows_its_arithmetic() -> None:
    since, until = period_bounds("day", date(2026, 11, 22))

    def at(hours: float, used: str, limit: str = "10") -> tuple[str, str]:
        now = since + timedelta(hours=hours)
        found = forecast(
            "day", since=since, until=until, now=now, used=Decimal(used), limit=Decimal(limit),
            say=said("cost_usd"),
        )  # fmt: skip
        return found.sentence, found.arithmetic

    assert at(0.5, "1")[0].startswith("Too early for a forecast: 1 hour of the period have to pass")
    assert at(6, "0")[0].startswith("Nothing was used")
    assert at(6, "12")[0] == "All of it is used."
    assert at(12, "4") == (
        "At this rate the period ends with $8.0000 of $10.00 used, 80 %.",
        "$4.0000 in 12 hours × 24 hours ÷ 12 hours = $8.0000.",
    )
    assert at(10, "5") == (
        "At this rate it is used up on Sunday, 22 Nov 20:00 UTC, 4 h before the period ends.",
        "$5.0000 in 10 hours, so $5.0000 more in $5.0000 × 10 hours ÷ $5.0000 = 10.0 hours.",
    )


@in_database
def test_the_page_of_a_budget_adds_up_to_its_ledger(client: Client, operator: User) -> None:
    budget = set_for("agent", agent="incident", cost_usd="50", tool_calls="100")
    run = drive_to_the_end(a_run(), operator)
    under_way = a_lease(a_run("under way"))
    an_attempt_of(under_way, 7_000, "0.125")
    client.force_login(operator)
    html = client.get(f"/budgets/{budget.pk}/").content.decode()
    assert "incident per month" in html and "$0.1250" in html and "under way" in html
    assert "You may look but not set budgets" in html and "<polyline" in html and "style=" not in html
    now = timezone.now()
    costs, calls = read_drawings(budget, simulated=True, now=now)
    assert costs.chart.rows[-1].left == said("cost_usd")(50 - run.cost_usd)
    assert calls.chart.rows[-1].left == str(100 - ledger_of(budget).tool_calls)
    state = read_state(budget, simulated=True, now=now)
    assert [call.run.pk for call in state.in_flight] == [under_way.run_id]
    assert client.get("/budgets/999/").status_code == 404


@in_database
def test_the_command_knows_every_scope(operator: User) -> None:
    def told(*arguments: str) -> str:
        out = StringIO()
        call_command("budget", *arguments, stdout=out)
        return out.getvalue()

    assert "user olga per week" in told("set", "--user", "olga", "--period", "week", "--tokens", "5000")
    soft = told("set", "--tag", "Night", "--cost-usd", "5", "--at-limit", "notify", "--notify-at", "90")
    assert "tag night per month: cost $0 of $5.0000; at the limit only notify" in soft
    assert Budget.objects.get(tag="night").thresholds == [90]
    told("remove", "--tag", "night")
    assert "is removed" in told("remove", "--user", "olga", "--period", "week")
    assert not Budget.objects.exists()


# ------------------------------------------------------------ many at once


@in_database
def test_no_run_exceeds_a_hard_budget_however_many_race() -> None:
    budget_race.prepare(25)  # far too little for so many
    happened = budget_race.race(60, threads=6, seed=7)
    assert happened["runs"] == 60 and happened["held back"] and happened["calls"] > 20, happened
    assert happened["violations"] == budget_race.audit() == 0, happened


@in_database
def test_permission_is_needed_to_set_one(client: Client, operator: User) -> None:
    client.force_login(operator)
    sent = {"scope": "tag", "subject": "night", "period": "week", "tokens": "5", "at_limit": "notify"}
    assert client.post("/budgets/set", sent).status_code == 403
    operator.user_permissions.add(Permission.objects.get(codename="budget"))
    answer = client.post("/budgets/set", sent | {"thresholds": "90 %, 20"})
    budget = Budget.objects.get()
    assert answer.headers["Location"] == f"/budgets/{budget.pk}/" and budget.thresholds == [20, 90]
    wrong = client.post("/budgets/set", sent | {"tokens": "many", "budget": "9" * 5_000})
    assert wrong.status_code == 422 and "“many” cannot be a limit" in wrong.content.decode()
