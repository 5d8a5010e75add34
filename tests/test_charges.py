"""The ledger: every attempt is an entry with its usage, prices, context and cause, and sums are exact."""

from __future__ import annotations

from decimal import Decimal
from importlib import import_module

import pytest
from django.apps import apps
from django.db.models import Sum

from runs import actions
from runs.models import Charge, Price, Run
from runs.money import FRACTION, Usage, context_from_api
from tests.factories import a_charge, a_lease, a_run, a_turn, an_attempt, run_calls

pytestmark = pytest.mark.django_db


def a_story() -> Run:
    """A run with an answer, a call, a broken attempt that is estimated, one without a price, and an end."""
    lease = a_lease(a_run())
    a_turn(lease, ("search_logs", "read", {"query": "pool", "time_range": "last 15 minutes"}))
    run_calls(lease)
    broken = an_attempt(lease)
    actions.fail_attempt(
        lease,
        broken,
        action="retry",
        kind="stalled",
        sentence="The stream stalled.",
        charge=actions.Charge(Usage(input_tokens=900), a_charge().prices, estimated=True, context="fast"),
    )
    a_turn(lease, text="It was the deployment.")
    actions.fail_attempt(
        lease,
        an_attempt(lease),
        action="fail",
        kind="refused",
        sentence="No.",
        charge=actions.Charge(Usage(input_tokens=40, output_tokens=2), None),
    )
    return Run.objects.get(pk=lease.run_id)


def test_every_attempt_is_a_charge_and_the_run_is_their_sum() -> None:
    run = a_story()
    charges = list(run.charges.order_by("id"))
    assert [charge.failed for charge in charges] == [False, True, False, True]
    assert [charge.estimated for charge in charges] == [False, True, False, False]
    assert [charge.caused_by for charge in charges] == ["", "search_logs", "search_logs", ""]
    assert [charge.context for charge in charges] == ["", "fast", "", ""]
    assert charges[3].price is None and charges[3].cost_usd is None
    total = run.charges.aggregate(Sum("amount"))["amount__sum"]
    assert Decimal(total) / FRACTION == run.cost_usd == sum(charge.cost_usd or 0 for charge in charges)
    assert all(charge.cost_usd == charge.price.units.cost(charge.usage) for charge in charges if charge.price)
    assert Price.objects.count() == 1


def test_steps_of_before_the_ledger_get_the_same_charges() -> None:
    a_story()
    shown = [field.attname for field in Charge._meta.concrete_fields if field.attname != "id"]
    booked = list(Charge.objects.order_by("id").values(*shown))
    Charge.objects.all().delete()
    import_module("runs.migrations.0019_charges").fill(apps, None)
    filled = list(Charge.objects.order_by("id").values(*shown))
    for row in booked:
        row["context"] = ""  # steps do not say it
    assert filled == booked


@pytest.mark.parametrize(
    ("usage", "context"),
    [
        ({}, ""),
        ({"service_tier": "standard", "speed": "standard", "inference_geo": "global"}, ""),
        ({"service_tier": "batch"}, "batch"),
        ({"service_tier": "priority", "speed": "fast", "inference_geo": "us"}, "priority,fast,us"),
    ],
)
def test_the_context_says_what_selects_a_price(usage: dict[str, str], context: str) -> None:
    assert context_from_api(usage) == context
