"""What has no price is unpriced wherever a cost is shown, searched or exported: it is never zero."""

from __future__ import annotations

import io
import json
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from rich.console import Console

from runs import actions
from runs.management.trace import Trace
from runs.models import Run, RunStatus
from runs.money import Usage
from tests.factories import a_charge, a_lease, a_run, a_turn, an_attempt
from tests.test_cost_reports import listed

pytestmark = pytest.mark.django_db
USED = Usage(input_tokens=1_000, output_tokens=100)


def a_story(name: str, *prices: bool) -> Run:
    """A run that ended, with one attempt for each of these: with a price, or without one."""
    lease = a_lease(a_run(name))
    for is_priced in prices:
        charge = actions.Charge(USED, a_charge().prices if is_priced else None)
        step = an_attempt(lease)
        actions.fail_attempt(
            lease, step, action="retry", kind="overloaded", sentence="Busy.", charge=charge
        )  # fmt: skip
    actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="All is well.")
    return Run.objects.get(pk=lease.run_id)


@pytest.fixture
def stories() -> dict[str, Run]:
    """By the price of their calls."""
    return {
        "unpriced": a_story("unpriced", False, False),
        "partly": a_story("partly", True, False),
        "priced": a_story("priced", True),
        "nothing": a_story("nothing"),
    }


def test_the_log_says_null_and_the_tokens_that_have_no_price(stories: dict[str, Run]) -> None:
    said = {}
    for name, run in stories.items():
        out = io.StringIO()
        call_command("exportrun", str(run.request_id), stdout=out)
        log = json.loads(out.getvalue())
        said[name] = (log["cost_usd"], log["unpriced_tokens"], log["unpriced_calls"])
    one = f"{stories['priced'].cost_usd.normalize():f}"
    assert said == {
        "unpriced": (None, 2_200, 2),
        "partly": (one, 1_100, 1),
        "priced": (one, 0, 0),
        "nothing": ("0", 0, 0),
    }


def test_no_search_for_a_cost_finds_what_has_none(stories: dict[str, Run]) -> None:
    cost = stories["priced"].cost_usd

    def found(query: str) -> set[str]:
        pks = listed(query)
        return {name for name, run in stories.items() if run.pk in pks}

    assert found("cost:<=0") == found("cost:=0") == found("cost:<0.000001") == {"nothing"}
    assert found("cost:0") == found("cost:>=0") == found("cost:<1") == {"partly", "priced", "nothing"}
    assert found("cost:>0") == found(f"cost:={cost.normalize():f}") == {"partly", "priced"}
    assert found("-cost:>0") == {"unpriced", "nothing"} and found("has:unpriced") == {"unpriced", "partly"}


def test_the_log_has_the_shape_of_a_plain_script_if_that_is_asked_for(
    client: Client, viewer: User, stories: dict[str, Run]
) -> None:
    lease = a_lease(a_run("Why?"))
    a_turn(lease, ("search_logs", "read", {"query": "pool"}), text="First the logs.")
    a_turn(lease, text="It was the pool.")
    actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="It was the pool.")
    run = Run.objects.get(pk=lease.run_id)
    out = io.StringIO()
    call_command("exportrun", str(run.request_id), "--format", "seed", stdout=out)
    client.force_login(viewer)
    address = f"/runs/{run.request_id}.json"
    log = client.get(f"{address}?format=seed").json()
    assert log == json.loads(out.getvalue())
    assert list(log) == [
        *("request_id", "user_query", "claude_reasoning", "tool_calls", "tool_results", "final_response"),
        *("total_tokens", "cost_usd"),
    ]
    assert (log["user_query"], log["final_response"]) == ("Why?", "It was the pool.")
    assert "First the logs." in log["claude_reasoning"] and "It was the pool." not in log["claude_reasoning"]
    assert type(log["total_tokens"]) is int and type(log["cost_usd"]) is float
    assert Decimal(str(log["cost_usd"])) == run.cost_usd
    unpriced = client.get(f"/runs/{stories['unpriced'].request_id}.json?format=seed").json()
    assert unpriced["cost_usd"] is None and unpriced["total_tokens"] == 2_200
    assert client.get(f"{address}?format=full").json() == client.get(address).json()
    refused = client.get(f"{address}?format=sead")
    assert refused.status_code == 400 and "full or seed" in refused.content.decode()


def test_pages_and_the_terminal_call_it_unpriced(
    client: Client, viewer: User, stories: dict[str, Run]
) -> None:
    client.force_login(viewer)
    run, other = stories["unpriced"], stories["priced"]
    compared = client.get(f"/runs/compare/?left={run.pk}&right={other.pk}").content.decode()
    costs = client.get("/costs/?period=24h&by=user").content.decode()
    missed = client.get("/costs/missed/?period=24h&reason=first").content.decode()
    pages = {"compared": compared, "list": client.get("/").content.decode(), "costs": costs, "missed": missed}
    pages["run"] = client.get(run.get_absolute_url()).content.decode()
    assert all("unpriced" in html for name, html in pages.items() if name != "missed")
    assert " and 3 calls without a price" in costs
    del pages["costs"]  # the priced calls saved nothing by caching, which is $0 indeed
    assert [name for name, html in pages.items() if "$0<" in html] == []
    said = {}
    for name, one in stories.items():
        out = io.StringIO()
        Trace(Console(file=out, width=120)).catch_up(one)
        said[name] = out.getvalue()
    assert "2,200 tokens · unpriced" in said["unpriced"] and "$0" not in said["unpriced"]
    assert "and 1 unpriced call" in said["partly"]
