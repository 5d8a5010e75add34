"""The ledger as files, and what is filed of it each month: everything adds up, and can be checked later."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.db.models import Sum
from django.http import StreamingHttpResponse
from django.test import Client
from django.utils import timezone

from runs.engine.bookkeeper import keep_books
from runs.models import Charge, Statement
from runs.money import FRACTION, UnitPrices, Usage
from runs.reading.entries import EntryFilter, in_order
from runs.reading.statement import read_statement
from runs.reading.statement_digest import digest_of
from tests.ledgers import Attempt, an_ended_run, listed, priced_anew

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parent.parent

OCTOBER = datetime(2026, 10, 20, 12, tzinfo=UTC)
FIRST = OCTOBER.date().replace(day=1)
NOVEMBER = datetime(2026, 11, 3, 12, tzinfo=UTC)
ODD = UnitPrices(
    *(
        Decimal(text)
        for text in ("3.3333333333", "4.1666666666", "6.6666666666", "0.3333333333", "15.1", "9.9")
    ),
    source="contract 7",
)


@pytest.fixture
def page(client: Client, viewer: User) -> Client:
    """Vera's browser."""
    client.force_login(viewer)
    return client


def fetched(page: Client, address: str) -> str:
    response = page.get(address)
    assert response.status_code == 200, response.content
    assert isinstance(response, StreamingHttpResponse)
    return b"".join(response.streaming_content).decode()  # type: ignore[arg-type]


def two_months() -> None:
    """Random usage of two models, one without a price, of two agents and the simulator, and a repricing."""
    chance = random.Random(7)
    for n in range(40):
        usage = Usage(*(chance.randrange(0, 90_000) for _ in range(5)), 0, chance.randrange(3))
        at = OCTOBER + timedelta(hours=12 * n)  # into November
        prices = [listed(at=at), ODD, listed("claude-haiku-5-5", at=at, prompt_tokens=usage.prompt_tokens)]
        model = ["claude-sonnet-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "mythos-x"][n % 4]
        an_ended_run(
            Attempt(usage, at, model, prices[n % 4] if n % 4 < 3 else None, {"failed": n % 7 == 0}),
            Attempt(usage, at, fields={"estimated": True}, prices=listed(at=at)),
            agent=["incident", "=HYPERLINK(1)"][n % 2],
            user=["alert", "olga,\n@x", "-1+2"][n % 3],
            simulated=n % 5 == 0,
        )
    october = Charge.objects.filter(at__lt=datetime(2026, 11, 1, tzinfo=UTC))
    for charge in [*october.filter(price=None), *october.filter(price__source="contract 7")[:3]]:
        priced_anew(charge, ODD, booked_at=NOVEMBER)


def test_an_export_holds_every_entry_and_its_sum_is_that_of_the_ledger(page: Client) -> None:
    two_months()
    in_sevens = in_order(
        Charge.objects.all(), ("id", "at"), at_once=7
    )  # equal times at the edges of portions
    assert list(in_sevens) == list(Charge.objects.order_by("at", "id").values_list("id", "at"))
    ledger = Decimal(Charge.objects.aggregate(total=Sum("amount"))["total"]) / FRACTION
    lines = [json.loads(line) for line in fetched(page, "/costs/export/?format=jsonl").splitlines()]
    assert sorted(line["entry_id"] for line in lines) == sorted(Charge.objects.values_list("pk", flat=True))
    assert sum(Decimal(line["amount_usd"] or 0) for line in lines) == ledger
    table = list(csv.DictReader(io.StringIO(fetched(page, "/costs/export/?format=csv"))))
    assert sum(Decimal(row["amount_usd"] or 0) for row in table) == ledger
    assert [int(row["entry_id"]) for row in table] == [line["entry_id"] for line in lines]
    unpriced = [row for row in table if not row["price_source"]]
    assert unpriced and {row["amount_usd"] for row in unpriced} == {""}
    assert {row["usd_per_million_input"] for row in unpriced} == {""}
    assert {row["agent"][0] for row in table} == {"i", "'"}
    assert {row["user"][0] for row in table} == {"a", "o", "'"}
    assert any(row["amount_usd"].startswith("-") for row in table)  # a number stays one


def test_an_export_is_filtered_like_the_list_and_says_what_it_does_not_understand(page: Client) -> None:
    two_months()
    wanted = (
        "from=2026-10-25&to=2026-10-31&agent=incident&simulated=0&model=claude-sonnet-5-5,claude-haiku-5-5"
    )
    lines = [json.loads(line) for line in fetched(page, f"/costs/export/?format=jsonl&{wanted}").splitlines()]
    assert lines
    for line in lines:
        assert "2026-10-25T00" <= line["at"] < "2026-11-01" and line["agent"] == "incident"
        assert line["simulated"] is False and line["model"] != "mythos-x"
    for bad in (
        "from=soon",
        "from=2026-11-02&to=2026-11-01",
        "simulated=maybe",
        "statement=13",
        "format=xml",
        "zone=Berlin",
    ):
        response = page.get(
            f"/costs/export/?format=csv&{bad}" if "format" not in bad else f"/costs/export/?{bad}"
        )
        assert response.status_code == 400 and b"has to be" in response.content
    assert b"has to be" in page.get("/costs/export/summary/?by=shoe").content


@pytest.mark.parametrize(
    ("by", "period"), [("agent", "hour"), ("agent,model,user", "week"), ("simulated", "month"), ("", "all")]
)
def test_sums_by_period_add_up_to_the_ledger(page: Client, by: str, period: str) -> None:
    two_months()
    text = fetched(
        page, f"/costs/export/summary/?format=jsonl&by={by}&period={period}&from=2026-10-28&to=2026-11-01"
    )
    rows = [json.loads(line) for line in text.splitlines()]
    since, until = datetime(2026, 10, 28, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)
    ledger = list(Charge.objects.filter(at__gte=since, at__lt=until))
    assert sum(Decimal(row["amount_usd"] or 0) for row in rows) == sum(
        charge.cost_usd or 0 for charge in ledger
    )
    assert sum(row["output_tokens"] for row in rows) == sum(charge.output_tokens for charge in ledger)
    assert sum(row["unpriced_tokens"] for row in rows) == sum(
        charge.usage.total_tokens for charge in ledger if charge.price_id is None
    )


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "Asia/Kathmandu"]
)  # a day of 25 hours; quarters of an hour
def test_days_of_an_export_begin_at_midnight_of_its_zone(page: Client, zone: str) -> None:
    two_months()
    asked = f"format=jsonl&by=&period=day&zone={zone}&from=2026-10-24&to=2026-11-01"
    rows = [json.loads(line) for line in fetched(page, f"/costs/export/summary/?{asked}").splitlines()]
    here = ZoneInfo(zone)
    assert len(rows) > 5
    for row in rows[1:-1]:
        since, until = datetime.fromisoformat(row["from"]), datetime.fromisoformat(row["to"])
        begun, ended = since.astimezone(here), until.astimezone(here)
        assert (begun.hour, begun.minute, ended.hour, ended.minute) == (0, 0, 0, 0)
        assert (ended.date() - begun.date()).days == 1
        ledger = Charge.objects.filter(at__gte=since, at__lt=until)
        assert row["entries"] == ledger.count()
        assert Decimal(row["amount_usd"] or 0) == sum(charge.cost_usd or 0 for charge in ledger)


def test_the_lines_of_a_statement_add_up_to_the_last_digit() -> None:
    two_months()
    statement = read_statement(FIRST, now=timezone.now())
    assert [book.simulated for book in statement.books] == [False, True]
    assert any(group.rounding for group in statement.books[0].prices)  # an odd price has too many digits
    for book in statement.books:
        for group in book.prices:
            for line in group.lines:
                per = 1000 if line.name == "web searches" else 10**6
                assert line.amount == line.count * line.unit / per
            assert sum(line.amount for line in group.lines) + group.rounding == group.amount
        total = book.total.amount
        assert sum(group.amount for group in book.prices) == total
        assert sum(sums.amount for _, _, sums in book.agents) == total
        assert sum(sums.amount for _, sums in book.users) == total
        assert book.unpriced and sum(line.total for line in book.unpriced) == book.total.unpriced_tokens


def test_each_entry_is_in_one_statement_and_a_month_that_is_over_never_changes() -> None:
    two_months()
    before = digest_of(FIRST)
    assert keep_books(datetime(2026, 11, 1, 0, 30, tzinfo=UTC)) == 0 and not Statement.objects.exists()
    keep_books(datetime(2026, 11, 1, 2, tzinfo=UTC))
    closed = Statement.objects.get()
    later = Charge.objects.filter(at__lt=datetime(2026, 11, 1, tzinfo=UTC), number=0).exclude(price=None)[0]
    priced_anew(later, ODD, booked_at=NOVEMBER + timedelta(days=1))
    october = read_statement(FIRST, now=NOVEMBER)
    november = read_statement(NOVEMBER.date().replace(day=1), now=NOVEMBER)
    assert digest_of(FIRST) == before and not october.contradiction and not october.is_provisional
    assert closed.sha256 == before.sha256 and november.is_provisional
    parts = [book for statement in (october, november) for book in statement.books]
    assert (
        sum(book.due for book in parts) == Decimal(Charge.objects.aggregate(s=Sum("amount"))["s"]) / FRACTION
    )
    assert any(book.corrections.amount for book in november.books)
    for book in october.books:  # what reports say, who count corrections at the time of the usage
        at = Charge.objects.filter(at__lt=october.after, simulated=book.simulated).aggregate(s=Sum("amount"))[
            "s"
        ]
        assert book.now_reported == Decimal(at) / FRACTION
    Charge.objects.filter(pk=later.pk).update(user="nobody")
    assert "digests differ" in read_statement(FIRST, now=NOVEMBER).contradiction
    Charge.objects.filter(pk=later.pk).update(amount=1)
    assert "other amounts" in read_statement(FIRST, now=NOVEMBER).contradiction


def test_a_printed_digest_is_computed_again_from_the_export_alone(page: Client, tmp_path: Path) -> None:
    two_months()
    for month in ("2026-10", "2026-11"):
        html = page.get(f"/costs/statement/{month}/").content.decode()
        file = tmp_path / "entries.jsonl"
        file.write_text(fetched(page, f"/costs/export/?format=jsonl&statement={month}"))
        checked = subprocess.run(
            [sys.executable, "-S", "docs/check_statement.py", str(file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        said = dict(line.split(maxsplit=1) for line in checked.stdout.splitlines())
        assert said["sha256"] in html and f"{int(said['entries']):,}" in html, checked.stderr
        assert f"{Decimal(said['sum'].removesuffix(' USD')):,f}" in html


def test_months_are_listed_and_those_to_come_are_not(page: Client) -> None:
    two_months()
    html = page.get("/costs/statement/").content.decode()
    assert "October 2026" in html and "November 2026" in html and "September 2026" not in html
    assert page.get("/costs/statement/2999-01/").status_code == 404
    assert page.get("/costs/statement/2026-13/").status_code == 404
    assert page.get(f"/costs/statement/{'9' * 30}-1/").status_code == 404
    for month in ("2999-01", "9999-12"):  # an empty file would look like a month in which nothing was used
        refused = page.get(f"/costs/export/?format=csv&statement={month}")
        assert refused.status_code == 400 and b"There is no statement of" in refused.content
    assert b"Nothing was booked" in page.get("/costs/statement/2020-01/").content
    assert page.get("/costs/export/").status_code == 200


def test_a_filter_takes_names_with_commas_in_quotes() -> None:
    wanted = EntryFilter.parse({"user": 'olga , "Doe, J.",, =x'}, now=NOVEMBER)
    assert wanted.user == ("olga", "Doe, J.", "=x")


def test_a_filter_takes_times_with_a_zone() -> None:
    wanted = EntryFilter.parse({"from": "2026-11-01T01:00+01:00", "to": "2026-11-01"}, now=NOVEMBER)
    assert wanted.since == datetime(2026, 11, 1, tzinfo=UTC) and wanted.until == datetime(
        2026, 11, 2, tzinfo=UTC
    )
