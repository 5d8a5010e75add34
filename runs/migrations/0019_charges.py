"""The ledger of charges, filled with what the steps say that were recorded before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

FRACTION = 10**10
PRICES = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output", "web_search")
CLASSES = PRICES[:-1]
TOKENS = (*(f"{name}_tokens" for name in CLASSES), "thinking_tokens")
COLUMNS = (
    *("run_id", "seq", "pk", "kind", "status", "name", "ended_at", "usage_estimated", "unit_prices"),
    *("price_source", "cost_usd", "run__agent", "run__started_by", "run__simulated", *TOKENS),
)
AT_ONCE = 5_000


def fill(apps: Any, schema_editor: Any) -> None:
    """A charge for each attempt that ended. Copies of another run's turns cost nothing and have none."""
    charge = apps.get_model("runs", "Charge")
    step = apps.get_model("runs", "Step")
    price = apps.get_model("runs", "Price")
    keys: dict[tuple[str, ...], int] = {}
    steps = step.objects.filter(kind__in=["model", "tool"]).order_by("run_id", "seq").values(*COLUMNS)
    waiting: list[Any] = []
    for _, of_run in groupby(steps.iterator(chunk_size=2_000), key=itemgetter("run_id")):
        waiting += [charge(**values) for values in charges_of(of_run, price, keys)]
        if len(waiting) >= AT_ONCE:
            charge.objects.bulk_create(waiting)
            waiting = []
    charge.objects.bulk_create(waiting)


def charges_of(steps: Any, price: Any, keys: dict[tuple[str, ...], int]) -> Iterator[dict[str, Any]]:
    """The columns of the charges of one run."""
    tools: set[str] = set()
    for step in steps:
        if step["kind"] == "tool":
            tools.add(step["name"])
            continue
        if step["ended_at"] is not None and step["price_source"] != "copied":
            yield columns(step, tools) | money(step, price, keys)
        if step["status"] == "succeeded":
            tools = set()


def columns(step: dict[str, Any], tools: set[str]) -> dict[str, Any]:
    """What a charge repeats of its step and run."""
    return {
        "step_id": step["pk"],
        "run_id": step["run_id"],
        "at": step["ended_at"],
        "booked_at": step["ended_at"],
        "agent": step["run__agent"],
        "user": step["run__started_by"],
        "model": step["name"],
        "simulated": step["run__simulated"],
        "caused_by": ",".join(sorted(tools))[:300],
        "failed": step["status"] == "failed",
        "estimated": step["usage_estimated"],
        **{name: step[name] for name in TOKENS},
    }


def money(step: dict[str, Any], price: Any, keys: dict[tuple[str, ...], int]) -> dict[str, Any]:
    """Its price and amount. What the tokens do not explain of the cost were web searches."""
    if step["cost_usd"] is None:
        return {}
    stored = json.loads(step["unit_prices"])
    units = {name: Decimal(stored[name]) for name in PRICES}
    key = (step["name"], step["price_source"], *(stored[name] for name in PRICES))
    if key not in keys:
        keys[key] = price.objects.get_or_create(model=key[0], source=key[1], **units)[0].pk
    tokens = sum((step[f"{name}_tokens"] * units[name] for name in CLASSES), Decimal(0)) / 1_000_000
    rest = step["cost_usd"] - tokens
    searches = round(rest * 1000 / units["web_search"]) if units["web_search"] else 0
    return {
        "price_id": keys[key],
        "amount": int(step["cost_usd"] * FRACTION),
        "web_searches": max(0, searches),
    }


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0018_errors_across_runs"),
    ]

    operations = [
        migrations.CreateModel(
            name="Price",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("model", models.CharField(max_length=128)),
                ("source", models.CharField(max_length=100)),
                ("input", models.DecimalField(decimal_places=10, max_digits=20)),
                ("cache_write_5m", models.DecimalField(decimal_places=10, max_digits=20)),
                ("cache_write_1h", models.DecimalField(decimal_places=10, max_digits=20)),
                ("cache_read", models.DecimalField(decimal_places=10, max_digits=20)),
                ("output", models.DecimalField(decimal_places=10, max_digits=20)),
                ("web_search", models.DecimalField(decimal_places=10, max_digits=20)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=(
                            "model",
                            "source",
                            "input",
                            "cache_write_5m",
                            "cache_write_1h",
                            "cache_read",
                            "output",
                            "web_search",
                        ),
                        name="price_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("cache_read__gte", 0),
                            ("cache_write_1h__gte", 0),
                            ("cache_write_5m__gte", 0),
                            ("input__gte", 0),
                            ("output__gte", 0),
                            ("web_search__gte", 0),
                        ),
                        name="price_not_negative",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Charge",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.PositiveIntegerField(default=0)),
                ("entry", models.SmallIntegerField(choices=[(1, "Charge"), (-1, "Reversal")], default=1)),
                ("at", models.DateTimeField()),
                ("booked_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("agent", models.CharField(max_length=64)),
                ("user", models.CharField(max_length=150)),
                ("model", models.CharField(max_length=128)),
                ("simulated", models.BooleanField()),
                ("caused_by", models.CharField(blank=True, default="", max_length=300)),
                ("failed", models.BooleanField(default=False)),
                ("estimated", models.BooleanField(default=False)),
                ("context", models.CharField(blank=True, default="", max_length=60)),
                ("input_tokens", models.BigIntegerField(default=0)),
                ("cache_write_5m_tokens", models.BigIntegerField(default=0)),
                ("cache_write_1h_tokens", models.BigIntegerField(default=0)),
                ("cache_read_tokens", models.BigIntegerField(default=0)),
                ("output_tokens", models.BigIntegerField(default=0)),
                ("thinking_tokens", models.BigIntegerField(default=0)),
                ("web_searches", models.BigIntegerField(default=0)),
                ("amount", models.BigIntegerField(blank=True, null=True)),
                (
                    "run",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="charges",
                        to="runs.run",
                    ),
                ),
                (
                    "step",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="charges",
                        to="runs.step",
                    ),
                ),
                (
                    "price",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="runs.price",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["at"], name="charge_at"),
                    models.Index(fields=["run", "at"], name="charge_of_run"),
                    models.Index(
                        condition=models.Q(("price__isnull", True)), fields=["model"], name="charge_unpriced"
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("step", "number"), name="charge_once"),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("amount__isnull", True), ("price__isnull", True)),
                            models.Q(("amount__isnull", False), ("price__isnull", False)),
                            _connector="OR",
                        ),
                        name="charge_priced_or_not",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("entry__in", [1, -1])), name="charge_entry_known"
                    ),
                ],
            },
        ),
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=True),
    ]
