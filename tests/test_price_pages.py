"""The pages of prices: unpriced usage is one click from a price, and a dry run one click from being done."""

from __future__ import annotations

import csv
import html
import io
import json
import re

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from runs.management.startup import allow_operating
from runs.models import Charge, PriceOverride, Repricing, Run
from runs.reading.export import run_log
from tests.factories import a_lease, a_run
from tests.test_repricing import PRICES, charged, nothing_is_wrong, override

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def treasurer(client: Client) -> User:
    """May set prices, and has signed in."""
    user = User.objects.create_user("dana")
    user.user_permissions.add(Permission.objects.get(codename="price"))
    client.force_login(user)
    return user


def page(client: Client, address: str, status: int = 200) -> str:
    answer = client.get(address)
    assert answer.status_code == status
    return answer.content.decode()


def test_unpriced_usage_is_priced_and_repriced_by_following_links(client: Client, treasurer: User) -> None:
    lease = a_lease(a_run("Why is checkout slow?"))
    step = charged(lease)
    charged(lease, "claude-sonnet-5-5")
    shown = page(client, "/costs/prices/")
    assert "Used without a price" in shown and "8,712" in shown
    assert "?model=claude-mythos-5-1&amp;context=" in shown
    (link,) = re.findall(r'href="(/[^"]*charge%3Aunpriced[^"]*)"', shown)
    found = page(client, html.unescape(link))
    assert "billed:claude-mythos-5-1" in found and "Why is checkout slow?" in found
    form = page(client, "/costs/prices/new?model=claude-mythos-5-1&context=")
    assert 'value="claude-mythos-5-1"' in form and 'value="10"' in form
    sent = PRICES | {"model": "claude-mythos-5-1", "reason": "contract <b>7</b>"}
    wrong = client.post("/costs/prices/new", sent | {"output": "", "valid_from": "soon"})
    assert wrong.status_code == 422
    told = wrong.content.decode()
    assert "A price is missing: give the USD for output" in told and "“soon” is no time" in told
    assert 'value="3.75"' in told and not PriceOverride.objects.exists()
    assert client.post("/costs/prices/new", sent).status_code == 302
    shown = page(client, "/costs/prices/")
    assert "of dana, revision 1" in shown and "contract &lt;b&gt;7&lt;/b&gt;" in shown
    made = client.post("/costs/prices/repricings/", {"since": "2026-01-01"})
    plan = Repricing.objects.get()
    assert made["Location"] == f"/costs/prices/repricings/{plan.pk}/"
    shown = page(client, made["Location"])
    assert "$0.0103" in shown and "Reprice 1 charge" in shown and "Why is checkout slow?" in shown
    refused = client.post(made["Location"] + "apply", {"digest": plan.digest, "reason": ""})
    assert refused.status_code == 422 and "characters why" in refused.content.decode()
    assert (
        client.post(made["Location"] + "apply", {"digest": plan.digest, "reason": "late"}).status_code == 302
    )
    assert "1 run is done" in page(client, made["Location"])
    assert "Used without a price" not in page(client, "/costs/prices/")
    panel = page(client, f"/runs/{step.run.request_id}/?step={step.seq}")
    assert "Reversal of 0" in panel and "3 entries" in panel
    calls = run_log(Run.objects.get())["model_calls"]
    assert [entry["cost_usd"] for entry in calls[0]["charges"]] == [None, None, "0.0103266"]
    assert calls[0]["charges"][1]["takes_back"] == 0 and calls[0]["cost_usd"] == "0.0103266"
    nothing_is_wrong()


def test_a_dry_run_is_exported_line_by_line(client: Client, treasurer: User) -> None:
    charged(a_lease(a_run()))
    override()
    client.post("/costs/prices/repricings/", {"since": "2026-01-01"})
    address = f"/costs/prices/repricings/{Repricing.objects.get().pk}"
    (line,) = list(csv.DictReader(io.StringIO(b"".join(client.get(f"{address}.csv")).decode())))
    assert (line["usd_before"], line["usd_after"], line["newly_priced"]) == ("", "0.0103266", "1")
    assert ">$0<" not in page(client, f"{address}/") and ">unpriced<" in page(client, f"{address}/")
    (row,) = [json.loads(text) for text in b"".join(client.get(f"{address}.jsonl")).decode().splitlines()]
    assert row["usd_difference"] == "0.0103266" and row["request_id"] == line["request_id"]
    future = client.post("/costs/prices/repricings/", {"since": "2990-01-01", "until": "2990-02-01"})
    assert future.status_code == 422 and b"still to come" in future.content


def test_who_may_only_look_sees_prices_and_changes_none(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    mine = override()
    charged(a_lease(a_run()), "claude-mythos-5")
    assert "Ask an administrator for the permission “price”" in page(client, "/costs/prices/")
    assert "Price it" not in page(client, "/costs/prices/")
    page(client, f"/costs/prices/{mine.pk}/")
    for address in ("new", f"{mine.pk}/", f"{mine.pk}/end", f"{mine.pk}/withdraw", "repricings/"):
        answer = client.post(f"/costs/prices/{address}", PRICES | {"model": "x", "reason": "x"})
        assert answer.status_code == 403, address
    assert PriceOverride.objects.get().revision == 1 and not Repricing.objects.exists()
    assert "No dry run" not in page(client, "/costs/prices/repricings/")
    page(client, "/costs/prices/999/", 404)
    page(client, "/costs/prices/repricings/999/", 404)


def test_whoever_runs_it_on_his_own_machine_may_set_prices_too(viewer: User) -> None:
    allow_operating(viewer)
    own = Permission.objects.filter(content_type__app_label="runs").exclude(codename__contains="_")
    assert {f"runs.{each.codename}" for each in own} == viewer.get_user_permissions()


def test_a_price_is_changed_ended_and_withdrawn_on_its_page(client: Client, treasurer: User) -> None:
    mine = override()
    address = f"/costs/prices/{mine.pk}/"
    client.post(address, PRICES | {"output": "16", "valid_from": "2026-01-01", "reason": "dearer"})
    shown = page(client, address)
    assert "<del>$15</del> <ins>$16</ins>" in shown and "2026-01-01 00:00" in shown and "revision 3" in shown
    assert client.post(f"{address}end", {"reason": ""}).status_code == 422
    assert client.post(f"{address}end", {"reason": "over"}).status_code == 302
    again = client.post(f"{address}end", {"reason": "over"})
    assert again.status_code == 422 and "ended already" in again.content.decode()
    assert client.post(f"{address}withdraw", {"reason": "a mistake"}).status_code == 302
    assert "withdrawn" in page(client, address) and "never" in page(client, "/costs/prices/")


def test_a_price_that_begins_or_a_long_prompt_has_a_line_of_its_own(client: Client, treasurer: User) -> None:
    charged(a_lease(a_run()), "claude-haiku-5-5")
    override(valid_from="2026-12-24")
    shown = page(client, "/costs/prices/")
    assert "prompts over 100,000 tokens" in shown and "begins" in shown


def test_the_command_does_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    charged(a_lease(a_run()))
    with pytest.raises(CommandError, match="A price is missing"):
        call_command("price", "set", "claude-mythos-5-1", "--reason", "contract")
    options = [f"--{name.replace('_', '-')}={usd}" for name, usd in PRICES.items()]
    call_command("price", "set", "claude-mythos-5-1", *options, "--reason=contract")
    number = PriceOverride.objects.get().pk
    call_command("price", "set", f"--change={number}", "--output=15.5", "--reason=dearer")
    assert "revision 2" in capsys.readouterr().out
    call_command("price", "reprice", "--from", "2026-01-01")
    plan = Repricing.objects.get()
    assert f"Apply it: manage.py price apply {plan.pk}" in capsys.readouterr().out
    call_command("price", "apply", str(plan.pk), "--reason=late")
    assert f"repricing {plan.pk}, applied: 1 charges of 1 runs" in capsys.readouterr().out
    assert Charge.objects.filter(price__isnull=False).get().amount == 105_476_000
    call_command("price", "withdraw", str(number), "--reason=mistake")
    assert "withdrawn" in capsys.readouterr().out
    nothing_is_wrong()
