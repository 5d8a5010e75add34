"""Budgets that runs share hold, whoever races for the last of them; at a limit a run wraps up or asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections, transaction
from django.db.models import Sum
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from runs import actions
from runs.actions import BudgetUsedUp, Lease
from runs.actions.ledger import keep_writers_out, why_no_call
from runs.engine.drive import Driver, drive
from runs.models import Budget, Run, RunStatus, Spending, Step, StepKind
from runs.reading.budgets import ledger_contradictions
from runs.reading.invariants import contradictions
from tests.factories import a_charge, a_lease, a_run, a_turn, an_attempt
from tests.test_engine import drive_to_the_end

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("faults")]


def a_budget(at_limit: str = "wrap_up", tool: str = "", period: str = "month", **limits: str) -> Budget:
    """What all runs of the installation share."""
    return actions.set_budget(
        actor="olga", scope="installation", period=period, tool=tool, limits=limits, at_limit=at_limit
    )


def the_ledger(budget: Budget) -> Spending:
    """What it says now; every ledger agrees with the steps."""
    assert ledger_contradictions() == []
    return Spending.objects.filter(budget=budget, simulated=True).latest("starts_on")


def an_attempt_of(lease: Lease, tokens: int, usd: str | None) -> Step:
    return actions.start_attempt(
        lease,
        model="claude-sonnet-5-5",
        attempt=1,
        request_sha256="0" * 64,
        max_tokens=1_000,
        reserved_tokens=tokens,
        reserved_usd=None if usd is None else Decimal(usd),
    )


def kinds(run: Run) -> list[str]:
    return list(run.events.order_by("seq").values_list("kind", flat=True))


# ------------------------------------------------------------ the ledger


def test_a_call_reserves_its_worst_case_and_pays_what_it_used() -> None:
    budget = a_budget(cost_usd="1", tokens="100000")
    lease = a_lease(a_run())
    step = an_attempt_of(lease, 5_000, "0.25")
    ledger = the_ledger(budget)
    assert (ledger.reserved_tokens, ledger.reserved_usd, ledger.tokens) == (5_000, Decimal("0.25"), 0)
    actions.fail_attempt(lease, step, action="retry", kind="x", sentence="x", charge=a_charge())
    ledger = the_ledger(budget)
    step.refresh_from_db()
    assert (ledger.reserved_tokens, ledger.reserved_usd) == (0, Decimal(0))
    assert (ledger.tokens, ledger.cost_usd) == (1_100, step.cost_usd)


def test_what_does_not_fit_is_not_written() -> None:
    budget = a_budget(cost_usd="0.4")
    lease, other = a_lease(a_run()), a_lease(a_run("another"))
    an_attempt_of(lease, 5_000, "0.25")
    with pytest.raises(BudgetUsedUp):
        an_attempt_of(other, 5_000, "0.25")
    with pytest.raises(BudgetUsedUp, match="no price"):
        an_attempt_of(other, 5_000, None)
    assert Step.objects.count() == 1 and the_ledger(budget).reserved_usd == Decimal("0.25")
    an_attempt_of(other, 5_000, "0.15")


@pytest.mark.parametrize("end", ["cancel", "worker_lost"])
def test_an_attempt_that_ends_without_a_word_counts_with_all_it_reserved(end: str) -> None:
    budget = a_budget(cost_usd="1", tokens="100000")
    lease = a_lease(a_run())
    step = an_attempt_of(lease, 5_000, "0.25")
    if end == "cancel":
        actions.cancel_run(run_id=lease.run_id, actor="olga")
    else:  # the reservation stays until another worker takes the run over
        Run.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert the_ledger(budget).reserved_usd == Decimal("0.25")
        taken = actions.claim(lease.run_id, "worker-2")
        assert taken is not None
        stops = iter([False, True])  # it closes the attempt and is told to stop before the next one
        assert Driver(taken).advance(None, lambda: next(stops)) is None
    step.refresh_from_db()
    assert step.usage_estimated and step.cost_usd is not None and step.cost_usd < Decimal("0.25")
    ledger = the_ledger(budget)
    assert (ledger.tokens, ledger.cost_usd, ledger.reserved_usd) == (5_000, Decimal("0.25"), Decimal(0))


def test_a_budget_made_in_the_middle_of_a_month_knows_what_was_spent_and_what_is_under_way(
    operator: User,
) -> None:
    whole = drive_to_the_end(a_run(), operator)
    lost = a_lease(a_run("another"))
    an_attempt_of(lost, 5_000, "0.25")
    actions.cancel_run(run_id=lost.run_id, actor="olga")
    under_way = a_lease(a_run("a third"))
    step = an_attempt_of(under_way, 7_000, "0.125")
    budget, reads = a_budget(cost_usd="50"), a_budget(tool="search_logs", tool_calls="100")
    ledger = the_ledger(budget)
    assert ledger.cost_usd == whole.cost_usd + Decimal("0.25") and ledger.tokens == whole.total_tokens + 5_000
    assert (ledger.reserved_tokens, ledger.reserved_usd) == (7_000, Decimal("0.125"))
    assert ledger.tool_calls == whole.steps.filter(kind=StepKind.TOOL, counted_at__isnull=False).count() > 0
    assert the_ledger(reads).tool_calls == whole.steps.filter(name="search_logs").count() > 0
    actions.fail_attempt(under_way, step, action="retry", kind="x", sentence="x", charge=a_charge())
    assert the_ledger(budget).reserved_usd == 0


def test_a_fork_copies_steps_and_spends_nothing(operator: User) -> None:
    run = drive_to_the_end(a_run(), operator)
    budget = a_budget(cost_usd="50", tool_calls="100")
    before = the_ledger(budget).amounts
    actions.ask_follow_up(run_id=run.pk, actor="olga", user=operator, question="Which one was it?")
    assert the_ledger(budget).amounts == before
    Spending.objects.all().delete()
    actions.open_ledgers()
    assert the_ledger(budget).amounts == before


def test_what_began_before_midnight_counts_in_the_day_in_which_it_began() -> None:
    day, month = a_budget(period="day", cost_usd="1"), a_budget(cost_usd="1")
    lease = a_lease(a_run())
    step = an_attempt_of(lease, 5_000, "0.25")
    # As if it had begun on the last day of the month before: its reservation stands in those ledgers.
    yesterday = timezone.now().astimezone(UTC).replace(day=1, hour=0, minute=0, second=0) - timedelta(
        seconds=1
    )
    Step.objects.update(started_at=yesterday)
    Spending.objects.all().delete()
    actions.open_ledgers(yesterday)
    actions.open_ledgers()
    step.refresh_from_db()
    actions.fail_attempt(lease, step, action="retry", kind="x", sentence="x", charge=a_charge())
    step.refresh_from_db()
    assert ledger_contradictions() == []
    for budget in (day, month):
        old, new = Spending.objects.filter(budget=budget, simulated=True).order_by("starts_on")
        assert (old.cost_usd, old.reserved_usd) == (step.cost_usd, Decimal(0))
        assert new.cost_usd == new.reserved_usd == Decimal(0)


def test_a_new_period_is_opened_by_the_first_run_that_needs_it(operator: User) -> None:
    budget = a_budget(cost_usd="50")
    Spending.objects.all().delete()
    with pytest.raises(BudgetUsedUp, match="not open"):
        an_attempt(a_lease(a_run("another")))
    run = drive_to_the_end(a_run(), operator)
    assert run.status == RunStatus.SUCCEEDED and the_ledger(budget).cost_usd == run.cost_usd


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "finish", "lose", "raise", "reopen"]), st.integers(0, 3), st.integers(1, 9)
    ),
    max_size=14,
)


@bounded(
    max_examples=12, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
@given(tenths=st.integers(1, 20), moves=STEPS)
def test_whatever_runs_do_the_ledger_says_what_a_model_of_it_says(
    operator: User, tenths: int, moves: list[tuple[str, int, int]]
) -> None:
    """The model knows amounts in tenths of a dollar and nothing of rows."""
    limit, spent = tenths, Decimal(0)
    held: dict[int, tuple[Step, int]] = {}
    for old in Budget.objects.all():
        actions.remove_budget(budget_id=old.pk, actor="o")
    Run.objects.all().update(simulated=False)  # the money of examples before this one is not of this ledger
    leases = [a_lease(a_run(f"run {number}")) for number in range(4)]
    budget = a_budget(cost_usd=f"{limit / 10}")
    for move, who, amount in moves:
        if move == "start" and who not in held:
            fits = spent * 10 + sum(worst for _, worst in held.values()) + amount <= limit
            if fits:
                held[who] = an_attempt_of(leases[who], 1_000, f"{amount / 10}"), amount
            else:
                with pytest.raises(BudgetUsedUp):
                    an_attempt_of(leases[who], 1_000, f"{amount / 10}")
        elif move in {"finish", "lose"} and who in held:
            step, worst = held.pop(who)
            charge = replace(a_charge(), estimated=move == "lose")
            actions.fail_attempt(leases[who], step, action="retry", kind="x", sentence="x", charge=charge)
            step.refresh_from_db()
            assert step.cost_usd is not None
            spent += Decimal(worst) / 10 if move == "lose" else step.cost_usd
        elif move == "raise":
            limit += amount
            budget = a_budget(cost_usd=f"{limit / 10}")
        elif move == "reopen":
            Spending.objects.all().delete()
            actions.open_ledgers()
        ledger = the_ledger(budget)
        assert ledger.cost_usd == spent and ledger.cost_usd + ledger.reserved_usd <= Decimal(limit) / 10
        assert ledger.reserved_usd * 10 == sum(worst for _, worst in held.values())


# ------------------------------------------------------------ many at once


def in_threads(acts: list[Callable[[], object]]) -> None:
    """All at once, each with a database connection of its own; what one of them raises is raised here."""
    problems: list[BaseException] = []
    start = threading.Barrier(len(acts))

    def work(act: Callable[[], object]) -> None:
        try:
            start.wait(30)
            act()
        except BaseException as problem:
            problems.append(problem)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if problems:
        raise problems[0]


@pytest.mark.parametrize("at_limit", ["wrap_up", "pause"])
def test_runs_that_race_for_the_last_dollar_never_exceed_it_together(operator: User, at_limit: str) -> None:
    limit = Decimal("0.16")
    budget = a_budget(cost_usd=str(limit), at_limit=at_limit)
    runs = [a_run(f"Checkout is slow {number}") for number in range(4)]
    most: list[Decimal] = []

    def race(run: Run) -> None:
        for _ in range(40):
            run.refresh_from_db()
            if run.is_ended or run.status in {RunStatus.PAUSED, RunStatus.WAITING}:
                return
            Run.objects.filter(pk=run.pk, status=RunStatus.QUEUED).update(retry_at=None)
            if lease := actions.claim(run.pk, f"worker-{run.pk}"):
                drive(lease, lambda: False)
            for ledger in Spending.objects.filter(budget=budget, simulated=True):
                most.append(ledger.cost_usd + ledger.reserved_usd)
        raise AssertionError(f"run {run.pk} never ends: {run.status} {run.reason}")

    in_threads([lambda run=run: race(run) for run in runs])  # type: ignore[misc]
    spent = Step.objects.filter(kind=StepKind.MODEL).aggregate(cost=Sum("cost_usd"))["cost"]
    assert max(most) <= limit and spent <= limit
    assert the_ledger(budget).cost_usd == sum((run.cost_usd for run in Run.objects.all()), Decimal(0))
    ends = {(run.status, run.reason) for run in Run.objects.all()}
    end = RunStatus.STOPPED if at_limit == "wrap_up" else RunStatus.PAUSED
    assert (end, budget.reason) in ends, (ends, spent, max(most))
    assert [contradictions(run) for run in Run.objects.all()] == [[]] * len(runs)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer")
def test_no_ledger_is_opened_between_a_look_at_budgets_and_the_start_of_a_call() -> None:
    lease = a_lease(a_run())
    (call,) = a_turn(lease, ("get_metrics", "read", {}))

    def open_ledgers() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '50ms'")
            keep_writers_out()

    with actions.together(lease) as current:
        _, steps = actions.driven(lease)  # remembered: nothing has locked the step itself
        assert why_no_call(current, steps[call.seq - 1]) == ""
        with pytest.raises(OperationalError, match="lock timeout"):
            in_threads([open_ledgers])
    in_threads([open_ledgers])


def test_ledgers_that_are_opened_while_runs_spend_miss_nothing(operator: User) -> None:
    leases = [a_lease(a_run(f"run {number}")) for number in range(4)]

    def spend(lease: Lease) -> None:
        for _ in range(6):
            step = an_attempt_of(lease, 5_000, "0.01")
            actions.fail_attempt(lease, step, action="retry", kind="x", sentence="x", charge=a_charge())

    def budgets() -> None:
        a_budget(cost_usd="90")
        a_budget(tokens="9000000", period="day")
        for _ in range(4):
            actions.set_budget(
                actor="o", scope="agent", agent="incident", period="day", limits={"tokens": "9000000"}
            )
            budget = Budget.objects.get(scope="agent")
            actions.remove_budget(budget_id=budget.pk, actor="o")

    def again(lease: Lease) -> None:
        while True:
            try:
                return spend(lease)
            except BudgetUsedUp:
                actions.open_ledgers()

    in_threads([*(lambda lease=lease: again(lease) for lease in leases), budgets])  # type: ignore[list-item]
    assert ledger_contradictions() == []
    assert Spending.objects.filter(reserved_tokens__gt=0).count() == 0
