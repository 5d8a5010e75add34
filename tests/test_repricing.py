"""People set prices and reprice the past: exactly what the dry run showed, and old prices stay."""

from __future__ import annotations

import contextlib
import os
import signal
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck
from hypothesis import settings as bounded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from runs import actions
from runs.actions import Lease
from runs.actions.prices import InvalidPrice, end_price, set_price, withdraw_price
from runs.actions.repricing import RepricingOutdated, apply_repricing, apply_some, plan_repricing
from runs.counting import hour_of
from runs.models import (
    Charge,
    CostSeal,
    PriceChange,
    PriceOverride,
    Repricing,
    RepricingLine,
    Run,
    RunStatus,
    Spending,
    Step,
)
from runs.reading.budgets import ledger_contradictions
from runs.reading.entries import EntryFilter
from runs.reading.invariants import contradictions
from runs.reading.ledger_export import bounds_of, summary
from tests.conftest import Installation, eventually
from tests.factories import a_lease, a_run, an_attempt

pytestmark = pytest.mark.django_db(transaction=True)

PRICES = {
    "input": "3",
    "cache_write_5m": "3.75",
    "cache_write_1h": "6",
    "cache_read": "0.3",
    "output": "15",
    "web_search": "10",
}
# 3 x 3 + 350 x 3.75 + 7917 x 0.3 + 442 x 15 = 10 326.6 millionths
RAW = {
    "input_tokens": 3,
    "cache_read_input_tokens": 7917,
    "cache_creation_input_tokens": 350,
    "output_tokens": 442,
}


def charged(lease: Lease, model: str = "claude-mythos-5-1", raw: dict[str, object] | None = None) -> Step:
    """An attempt that is over, priced as the engine prices it."""
    step = an_attempt(lease)
    charge = actions.price(model, raw or RAW, at=step.started_at)
    Step.objects.filter(pk=step.pk).update(name=model)
    lease.memory.steps = None
    actions.fail_attempt(lease, step, action="retry", kind="x", sentence="x", charge=charge)
    return Step.objects.get(pk=step.pk)


def override(model: str = "claude-mythos-5-1", context: str = "", **changed: str) -> PriceOverride:
    times = {name: changed.pop(name) for name in ("valid_from", "valid_to") if name in changed}
    return set_price(
        actor="dana", model=model, context=context, prices=PRICES | changed, reason="contract", **times
    )


def the_past() -> Repricing:
    """A dry run over everything."""
    since = datetime(2026, 1, 1, tzinfo=UTC)
    return plan_repricing(actor="olga", since=since, until=timezone.now() + timedelta(days=1))


def apply(plan: Repricing) -> Repricing:
    apply_repricing(actor="olga", repricing_id=plan.pk, digest=plan.digest, reason="the contract came late")
    while apply_some():
        pass
    return Repricing.objects.get(pk=plan.pk)


def nothing_is_wrong() -> None:
    assert [contradictions(run) for run in Run.objects.all() if contradictions(run)] == []
    assert ledger_contradictions() == []


def test_unpriced_usage_gets_the_price_that_people_set_and_keeps_what_was_before() -> None:
    lease = a_lease(a_run())
    step = charged(lease)
    run = Run.objects.get()
    assert (step.cost_usd, step.price_source, run.unpriced_calls) == (None, "unpriced", 1)
    override()
    plan = the_past()
    assert (plan.run_count, plan.charge_count, plan.before, plan.after) == (1, 1, 0, 103_266_000)
    line = RepricingLine.objects.get()
    assert (line.model, line.charges, line.newly_priced) == ("claude-mythos-5-1", 1, 1)
    step.refresh_from_db()
    assert step.cost_usd is None  # a dry run changes nothing
    done = apply(plan)
    assert (done.state, done.applied_by, done.finished_at is not None) == ("applied", "olga", True)
    step.refresh_from_db()
    run.refresh_from_db()
    assert step.cost_usd == run.cost_usd == Decimal("0.0103266")
    assert step.price_source == f"override {PriceOverride.objects.get().pk} of dana, revision 1"
    assert run.unpriced_calls == 0
    kept = list(Charge.objects.order_by("number").values_list("number", "entry", "takes_back", "amount"))
    assert kept == [(0, 1, None, None), (1, -1, 0, None), (2, 1, None, 103_266_000)]
    event = run.events.get(kind="run.repriced")
    assert event.actor == "olga" and event.fields["cost_after"] == "0.0103266000"
    nothing_is_wrong()
    assert the_past().charge_count == 0


def test_an_override_beats_the_list_and_names_itself_and_its_revision() -> None:
    mine = override("claude-sonnet-5-5")
    step = charged(a_lease(a_run()), "claude-sonnet-5-5-20261007")
    assert step.cost_usd == Decimal("0.0103266")
    assert step.price_source == f"override {mine.pk} of dana, revision 1"
    set_price(
        actor="petra",
        override_id=mine.pk,
        model="claude-sonnet-5-5",
        prices=PRICES | {"output": "16"},
        reason="a new contract",
    )
    later = charged(a_lease(a_run("another")), "claude-sonnet-5-5")
    assert later.cost_usd == Decimal("0.0107686")
    assert later.price_source == f"override {mine.pk} of petra, revision 2"
    step.refresh_from_db()
    assert step.cost_usd == Decimal("0.0103266")  # the past stays until it is repriced
    history = list(PriceChange.objects.order_by("id").values_list("actor", "what", "reason"))
    assert history == [("dana", "set", "contract"), ("petra", "changed", "a new contract")]


def test_an_override_holds_for_calls_that_began_while_it_was_valid() -> None:
    override("claude-sonnet-5-5", valid_from="2026-03-01", valid_to="2026-04-01 12:00")
    prices = {
        day: actions.price("claude-sonnet-5-5", RAW, at=datetime.fromisoformat(day + "+00:00")).prices
        for day in (
            "2026-02-28T23:59:59",
            "2026-03-01T00:00:00",
            "2026-04-01T11:59:59",
            "2026-04-01T12:00:00",
        )
    }
    assert [price.output for price in prices.values() if price] == [10, 15, 15, 10]


def test_two_overrides_never_hold_for_one_call() -> None:
    override(valid_from="2026-03-01", valid_to="2026-04-01")
    override(valid_from="2026-04-01")
    override(context="fast")
    for times in ({}, {"valid_from": "2026-03-31"}, {"valid_to": "2026-03-02"}):
        with pytest.raises(
            InvalidPrice, match=r"holds for claude-mythos-5-1 .standard.*Change or end that one"
        ):
            override(**times)
    assert PriceOverride.objects.count() == 3 == PriceChange.objects.count()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("input", "", "A price is missing: give the USD for input"),
        ("output", "1.23456", "up to 4 decimals"),
        ("cache_read", "-1", "cannot be a price"),
        ("input", "1e3", "cannot be a price"),
        ("valid_from", "tomorrow", "is no time. Write it like 2026-11-22 14:30"),
        ("valid_from", "2026-02-30", "is no time"),
    ],
)
def test_a_price_that_cannot_be_is_refused_with_a_sentence(field: str, value: str, words: str) -> None:
    with pytest.raises(InvalidPrice) as refused:
        override(**{field: value})
    assert words in refused.value.problems[field]
    assert not PriceOverride.objects.exists()


def test_a_withdrawn_override_never_held_and_its_charges_go_back_to_the_list() -> None:
    wrong = override("claude-sonnet-5-5", output="1500")
    step = charged(a_lease(a_run()), "claude-sonnet-5-5")
    assert step.cost_usd == Decimal("0.6666966")
    withdraw_price(actor="petra", override_id=wrong.pk, reason="a typing error")
    apply(the_past())
    step.refresh_from_db()
    assert step.cost_usd == Decimal("0.0060927")  # 6 + 875 + 791.7 + 4420 millionths
    assert step.price_source.startswith("genai-prices ")
    nothing_is_wrong()
    override("claude-sonnet-5-5")  # it is in nobody's way


def test_what_was_repriced_is_counted_again_and_what_lost_its_price_is_not_free() -> None:
    step = charged(a_lease(a_run()), "nova-1")
    later, seal = timezone.now() + timedelta(hours=2), CostSeal.objects.filter(hour=hour_of(step.started_at))
    for _ in range(2):
        mine = override("nova-1")
        actions.seal_hours(later)
        assert seal.exists()
        apply(the_past())
        assert not seal.exists()
        withdraw_price(actor="petra", override_id=mine.pk, reason="a typing error")
        apply(the_past())
    step.refresh_from_db()
    assert step.cost_usd is None and step.charges.count() == 9
    wanted = EntryFilter.parse({}, now=later)
    (row,) = summary(wanted, ("model",), bounds_of(wanted, "all"))
    assert row["amount_usd"] is None and row["unpriced_tokens"] == step.total_tokens
    nothing_is_wrong()


def test_an_override_can_end_and_the_next_call_has_the_price_of_the_list() -> None:
    mine = override("claude-sonnet-5-5")
    end_price(actor="petra", override_id=mine.pk, reason="the contract is over")
    assert charged(a_lease(a_run()), "claude-sonnet-5-5").price_source.startswith("genai-prices ")
    with pytest.raises(actions.ActionError, match="ended already"):
        end_price(actor="petra", override_id=mine.pk, reason="again")


def test_what_was_not_shown_is_not_done() -> None:
    charged(a_lease(a_run()))
    first = override()
    plan = the_past()
    charged(a_lease(a_run("another")), "claude-sonnet-5-5")  # another price: nothing of it would change
    set_price(
        actor="dana",
        override_id=first.pk,
        model=first.model,
        prices=PRICES | {"output": "99"},
        reason="dearer",
    )
    with pytest.raises(RepricingOutdated, match="make a new dry run"):
        apply(plan)
    with pytest.raises(RepricingOutdated):
        apply_repricing(actor="olga", repricing_id=the_past().pk, digest="0" * 64, reason="x")
    assert not Charge.objects.filter(number__gt=0).exists()


def test_while_it_is_applied_prices_stay_and_a_run_that_changed_meanwhile_is_left_alone() -> None:
    first, second = charged(a_lease(a_run())), charged(a_lease(a_run("another")))
    override()
    plan = the_past()
    competing = the_past()
    apply_repricing(actor="olga", repricing_id=plan.pk, digest=plan.digest, reason="late")
    with pytest.raises(actions.ActionError, match="being applied"):
        override("claude-mythos-5")
    with pytest.raises(actions.ActionError, match="Another repricing"):
        apply_repricing(actor="dana", repricing_id=competing.pk, digest=competing.digest, reason="late")
    assert apply_some(most=1)
    Charge.objects.filter(step=second).update(output_tokens=443)
    Step.objects.filter(pk=second.pk).update(output_tokens=443)
    Run.objects.filter(pk=second.run_id).update(output_tokens=443)
    assert not apply_some()
    states = list(RepricingLine.objects.filter(repricing=plan).values_list("run", "state"))
    assert states == [(first.run_id, "applied"), (second.run_id, "changed")]
    nothing_is_wrong()


def test_budgets_count_what_was_repriced_in_the_period_of_the_call() -> None:
    charged(a_lease(a_run()))
    for period in ("day", "month"):
        actions.set_budget(actor="olga", scope="installation", period=period, limits={"cost_usd": "0.01"})
    override()
    apply(the_past())
    nothing_is_wrong()
    lease = a_lease(a_run("another"))
    with pytest.raises(actions.BudgetUsedUp):
        actions.start_attempt(
            lease,
            model="claude-mythos-5-1",
            attempt=1,
            request_sha256="0" * 64,
            max_tokens=10,
            reserved_tokens=10,
            reserved_usd=Decimal("0.0001"),
        )


def test_a_driver_whose_run_is_repriced_between_two_moves_goes_on_from_the_new_rows() -> None:
    lease = a_lease(a_run())
    charged(lease)
    override()
    with actions.together(lease):
        run, steps = actions.driven(lease)
        assert steps[0].cost_usd is None
    apply(the_past())
    with actions.together(lease):
        run, steps = actions.driven(lease)
        assert run.cost_usd == steps[0].cost_usd == Decimal("0.0103266")
    charged(lease)
    actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="Done.")
    nothing_is_wrong()


# ------------------------------------------------------------ anything at any time


class Ledger(RuleBasedStateMachine):
    """Charges, overrides and repricings in any order, some of them cut short; sums agree at every moment."""

    models = ("claude-mythos-5-1", "claude-sonnet-5-5", "claude-haiku-5-5")

    def __init__(self) -> None:
        super().__init__()
        actions.open_ledgers()
        self.leases = [a_lease(a_run(f"run {number}")) for number in range(2)]
        self.plan: Repricing | None = None

    @rule(
        who=st.integers(0, 1),
        model=st.sampled_from(models),
        tokens=st.integers(0, 200_000),
        context=st.sampled_from([{}, {"service_tier": "batch"}, {"speed": "fast"}, {"inference_geo": "us"}]),
        compacted=st.booleans(),
    )
    def charge(self, who: int, model: str, tokens: int, context: dict[str, object], compacted: bool) -> None:
        parts = [
            {"type": "message", "input_tokens": tokens, "output_tokens": 7},
            {"type": "compaction", "model": "claude-mythos-5-1", "input_tokens": 11, "output_tokens": 1},
        ]
        raw = {"input_tokens": tokens, "output_tokens": 7, "iterations": parts if compacted else None}
        charged(self.leases[who], model, raw | context)

    @rule(model=st.sampled_from(models), output=st.integers(1, 99))
    def price(self, model: str, output: int) -> None:
        mine = PriceOverride.objects.filter(model=model).last()
        try:
            set_price(
                actor="dana",
                override_id=mine.pk if mine else None,
                model=model,
                prices=PRICES | {"output": str(output)},
                reason="x",
            )
        except actions.ActionError:
            assert Repricing.objects.filter(state="applying").exists()

    @rule()
    def withdraw(self) -> None:
        mine = PriceOverride.objects.last()
        if mine is not None and not Repricing.objects.filter(state="applying").exists():
            try:
                withdraw_price(actor="dana", override_id=mine.pk, reason="x")
            except actions.ActionError:
                assert mine.is_withdrawn

    @rule()
    def dry_run(self) -> None:
        self.plan = the_past()

    @rule()
    def begin(self) -> None:
        plan, self.plan = self.plan or the_past(), None
        with contextlib.suppress(actions.ActionError):
            apply_repricing(actor="olga", repricing_id=plan.pk, digest=plan.digest, reason="late")

    @rule(dies_at=st.integers(0, 40))
    def apply_until_killed(self, dies_at: int) -> None:
        """The process is gone before one of its statements: the transaction around it is void."""
        left = dies_at

        def killed(execute: Any, *arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return execute(*arguments)

        with contextlib.suppress(Killed), connection.execute_wrapper(killed):
            apply_some(most=1)

    @rule()
    def go_on(self) -> None:
        while apply_some():
            pass

    @invariant()
    def it_adds_up(self) -> None:
        nothing_is_wrong()

    def teardown(self) -> None:
        while apply_some():
            pass
        done = RepricingLine.objects.exclude(repricing__state="dry_run").values_list("state", flat=True)
        assert set(done) <= {"applied", "changed"}
        nothing_is_wrong()
        for lease in self.leases:
            actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="Done.")
        for row in (RepricingLine, Repricing, PriceChange, PriceOverride, Spending):
            row.objects.all().delete()
        Run.objects.all().delete()


class Killed(BaseException):
    """Nobody catches it, as nobody catches SIGKILL."""


def test_charges_prices_and_repricings_in_any_order_with_kills_add_up() -> None:
    for period in ("day", "month"):
        actions.set_budget(actor="olga", scope="installation", period=period, limits={"tokens": "1000000000"})
    run_state_machine_as_test(
        Ledger,
        settings=bounded(
            max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


# ------------------------------------------------------------ kill -9


@pytest.mark.server
@pytest.mark.long
def test_a_repricing_that_is_killed_in_the_middle_is_gone_on_with(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    try:
        story = "from tests.test_repricing import many_runs; many_runs()"
        assert installation.command("shell", "-v0", "-c", story).returncode == 0
        planned = installation.command("price", "reprice", "--from", "2026-01-01")
        assert "80 charges of 40 runs" in planned.stdout, planned.stderr
        applying = installation.start("price", "apply", "1", "--reason", "late")
        done = "SELECT 1 FROM runs_repricingline WHERE state = 'applied' LIMIT 1"
        eventually(lambda: installation.rows(done), within=60)
        os.kill(applying.pid, signal.SIGKILL)
        applying.wait()
        checked = installation.command("checkruns")
        assert (checked.returncode, checked.stdout) == (0, "40 runs checked, 0 with contradictions\n")
        worker = installation.start("worker")  # nobody says anything: whoever works goes on with it
        over = "SELECT 1 FROM runs_repricing WHERE state = 'applied'"
        eventually(lambda: installation.rows(over), within=60)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        assert installation.rows("SELECT count(*) FROM runs_charge WHERE entry = -1") == [(80,)]
        assert installation.rows("SELECT count(*) FROM runs_event WHERE kind = 'run.repriced'") == [(40,)]
        whole = "SELECT count(*) FROM runs_run WHERE cost_usd = 0.0206532 AND unpriced_calls = 0"
        assert installation.rows(whole) == [(40,)]
    finally:
        installation.close()


def many_runs() -> None:
    """Forty runs that are over, with two calls each that had no price, and a price for them."""
    for number in range(40):
        lease = a_lease(a_run(f"run {number}"))
        charged(lease)
        charged(lease)
        actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="Done.")
    override()
