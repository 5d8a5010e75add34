"""Every decision can be found again, taken along as a file, and shared as an address."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connections
from django.test import AsyncClient, Client
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from runs import actions
from runs.models import Approval, Vote
from runs.reading.history import BATCH, PAGE_SIZE
from runs.reading.history_export import cell
from runs.seen import card_seen
from tests.factories import a_run, a_waiting_call

fill_searched = import_module("runs.migrations.0025_folded_headlines").fill_searched
pytestmark = pytest.mark.django_db


def decided(
    voter: User, verdict: str = "approve", *, reason: str = "", at: datetime | None = None, **fields: Any
) -> Approval:
    """One decision; `headline` and `at` say what and when."""
    headline = fields.pop("headline", "Revert api")
    preview = {"headline": headline, "reversible": True, "chips": [], "changes": []}
    _, _, approval = a_waiting_call(a_run("Why?"), preview=preview, **fields)
    actions.decide(
        approval_id=approval.pk,
        voter=voter,
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        revision=1,
        digest=approval.digest,
    )
    if at:
        Approval.objects.filter(pk=approval.pk).update(decided_at=at)
    approval.refresh_from_db()
    return approval


@pytest.fixture
def page(client: Client, viewer: User) -> Client:
    """The browser of somebody who may only look."""
    client.force_login(viewer)
    return client


def headlines(client: Client, query: str = "") -> list[str]:
    """What the history shows for this address, in order."""
    response = client.get(f"/approvals/history/?{query}")
    assert response.status_code == 200
    return [entry.ask.headline for entry in response.context["page"].entries]


def test_it_is_filtered_by_whatever_is_known_of_a_decision(
    page: Client, operator: User, second_operator: User
) -> None:
    decided(operator, headline="Revert the api", rule="first")
    decided(second_operator, "reject", headline="Scale 100%_of it", environment="staging", rule="second")
    a_waiting_call(a_run("Still waits"))
    assert headlines(page) == ["Scale 100%_of it", "Revert the api"]
    for query, expected in (
        ("state=rejected", ["Scale 100%_of it"]),
        ("voter=olga", ["Revert the api"]),
        ("rule=second", ["Scale 100%_of it"]),
        ("environment=production", ["Revert the api"]),
        ("q=REVERT", ["Revert the api"]),
        ("q=0%25_", ["Scale 100%_of it"]),
        ("q=1%250", []),
        ("q=r%C3%A9vert+API", ["Revert the api"]),
        ("q=api+revert+scale", []),
        ("tool=revert_deployment&agent=incident&order=oldest", ["Revert the api", "Scale 100%_of it"]),
        ("tool=scale_service", []),
        ("agent=another", []),
        ("state=rejected&voter=olga", []),
        ("state=nonsense&since=nonsense&after=nonsense&until=0001-01-01", headlines(page)),
        ("until=9999-12-31", headlines(page)),
    ):
        assert headlines(page, query) == expected, query


def test_its_days_are_those_of_utc_with_the_last_one_included(page: Client, operator: User) -> None:
    late = timezone.now().replace(hour=23, minute=59, second=59, microsecond=0) - timedelta(days=3)
    decided(operator, headline="late", at=late)
    decided(operator, headline="early", at=late + timedelta(seconds=1))
    day = late.date()
    assert headlines(page, f"until={day}") == ["late"]
    assert headlines(page, f"since={day + timedelta(days=1)}") == ["early"]
    assert headlines(page, f"since={day}&until={day + timedelta(days=1)}") == ["early", "late"]
    assert headlines(page, f"since={day + timedelta(days=2)}") == []


def many(voter: User, count: int, at: datetime) -> list[int]:
    """So many decisions at the same moment; their ids in order."""
    first = decided(voter, at=at)
    fields = {f.attname: getattr(first, f.attname) for f in Approval._meta.concrete_fields if f.name != "id"}
    Approval.objects.bulk_create(Approval(**(fields | {"revision": n})) for n in range(2, count + 1))
    return list(Approval.objects.order_by("pk").values_list("pk", flat=True))


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_its_pages_hold_each_decision_once_also_when_times_are_equal(
    page: Client, operator: User, order: str
) -> None:
    pks = many(operator, 2 * PAGE_SIZE + 1, timezone.now())
    seen, sizes, address = [], [], f"order={order}"
    while address:
        response = page.get(f"/approvals/history/?{address}")
        entries = response.context["page"].entries
        seen += [entry.ask.pk for entry in entries]
        sizes.append(len(entries))
        following = response.context["page"].next
        address = following.address if following else ""
        assert not following or f"?{address}".replace("&", "&amp;") in response.content.decode()
    assert seen == (pks if order == "oldest" else pks[::-1])
    assert sizes == [PAGE_SIZE, PAGE_SIZE, 1]


def test_it_asks_the_same_few_questions_however_much_it_shows(
    page: Client, operator: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    address = "/approvals/history/?state=approved&voter=olga&q=revert"
    decided(operator)
    # session, user, permissions (2), page, its votes, what the filters offer (2), counts of the day, pending
    with django_assert_num_queries(11):
        page.get(address)
    for _ in range(4):
        decided(operator)
    with django_assert_num_queries(11):
        page.get(address)


def test_each_row_leads_to_card_run_and_receipt(page: Client, operator: User) -> None:
    approval = decided(operator)
    html = page.get("/approvals/decided/", follow=True).content.decode()
    where = f"/runs/{approval.run.request_id}/"
    for link in (f"/approvals/{approval.pk}/", f"{where}?step=2", f"{where}steps/2/receipt.json"):
        assert f'href="{link}"' in html


def test_what_people_wrote_is_never_markup(page: Client, operator: User) -> None:
    decided(operator, "reject", reason="<script>x</script>", headline="<img src=x>", rule='"><b>')
    html = page.get("/approvals/history/?q=%3Cimg").content.decode()
    assert "<script>x" not in html and "<img" not in html and "<b>" not in html


def test_it_is_exported_as_it_is_filtered(page: Client, operator: User) -> None:
    decided(operator, headline='=HYPERLINK("http://evil")', reason="+1, fine; really\nyes")
    decided(operator, "reject", headline="Scale")
    response = page.get("/approvals/history.csv?state=approved")
    assert response["Content-Type"].startswith("text/csv") and ".csv" in response["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(response.getvalue().decode()))
    assert row["headline"] == '\'=HYPERLINK("http://evil")'
    assert row["reasons"] == "'+1, fine; really\nyes"
    assert (row["state"], row["approved_by"], row["self_approved"]) == ("approved", "olga", "no")
    lines = page.get("/approvals/history.jsonl?order=oldest").getvalue().decode().splitlines()
    first, second = map(json.loads, lines)
    assert first["headline"] == '=HYPERLINK("http://evil")' and second["rejected_by"] == ["olga"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM", "\t=1", "\r=1", "  =1", "＝1", "\x00=1", "|x"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text).startswith("'") and cell([text]).startswith("'")
    assert cell(f"a{text}")[0] == "a"


def test_a_long_export_is_read_in_batches_and_complete(
    page: Client, operator: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    pks = many(operator, BATCH + 1, timezone.now())
    with django_assert_max_num_queries(10):
        lines = page.get("/approvals/history.jsonl").getvalue().decode().splitlines()
    assert [json.loads(line)["approval"] for line in lines] == pks[::-1]


@pytest.mark.django_db(transaction=True)
async def test_it_is_streamed_by_an_asynchronous_server_too(
    operator: User, async_client: AsyncClient
) -> None:
    await sync_to_async(decided)(operator)
    await async_client.aforce_login(operator)
    response = await async_client.get("/approvals/history.jsonl")
    assert response.is_async  # type: ignore[attr-defined]
    parts = [part async for part in response.streaming_content]  # type: ignore[attr-defined]
    assert json.loads(b"".join(parts))["headline"] == "Revert api"
    await sync_to_async(connections.close_all)()


# ------------------------------------------------------------------ time on the card


def test_how_long_the_card_was_open_is_kept_with_the_vote(client: Client, operator: User) -> None:
    _, _, approval = a_waiting_call()
    client.force_login(operator)
    ask = client.get(f"/approvals/{approval.pk}/").context["card"].ask
    note = card_seen(operator, ask, timezone.now() - timedelta(seconds=5))
    form = {"verdict": "maybe", "revision": 1, "digest": approval.digest, "seen": note}
    again = client.post(f"/approvals/{approval.pk}/decide/", form)
    assert f'name="seen" value="{note}"' in again.content.decode()  # the clock does not start anew
    client.post(f"/approvals/{approval.pk}/decide/", form | {"verdict": "approve"})
    seconds = Vote.objects.get().seconds_on_card
    assert seconds is not None and 5 <= seconds < 60


@pytest.mark.parametrize("forged", ["", "7", "someone", "revision"])
def test_a_note_that_is_not_about_this_says_nothing(
    client: Client, operator: User, second_operator: User, forged: str
) -> None:
    _, _, approval = a_waiting_call()
    client.force_login(operator)
    ask = client.get(f"/approvals/{approval.pk}/").context["card"].ask
    if forged == "someone":
        forged = card_seen(second_operator, ask, timezone.now())
    if forged == "revision":
        note = card_seen(operator, ask, timezone.now())
        forged = note.replace(".1.", ".2.", 1)
    form = {"verdict": "approve", "revision": 1, "digest": approval.digest, "seen": forged}
    assert client.post(f"/approvals/{approval.pk}/decide/", form).status_code == 302
    assert Vote.objects.get().seconds_on_card is None


def test_headlines_of_earlier_versions_are_found_without_their_accents(page: Client, operator: User) -> None:
    decided(operator, headline="Redémarrer Ünïcode")
    Approval.objects.update(searched="")
    fill_searched(apps, None)
    for query in ("q=redemarrer", "q=UNI%CC%88CODE", "q=unicode+red%C3%A9marrer"):
        assert headlines(page, query) == ["Redémarrer Ünïcode"], query
