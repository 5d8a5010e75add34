"""Prices that people set, with their history; charges that are priced anew."""

from __future__ import annotations

from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models
from django.db.models import Q


def name_contexts(apps: Any, schema_editor: Any) -> None:
    """Charges that were filled in from steps get the context that their price source tells of."""
    charge = apps.get_model("runs", "Charge")
    approximate = charge.objects.filter(context="", price__source__contains="approximate")
    priority, us = Q(price__source__contains="priority tier"), Q(price__source__contains="US inference")
    for condition, context in (
        (priority & us, "priority,us"),
        (priority & ~us, "priority"),
        (us & ~priority, "us"),
    ):
        found = approximate.filter(condition).values_list("pk", flat=True)
        charge.objects.filter(pk__in=list(found)).update(context=context)


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0020_budget_scopes"),
    ]

    operations = [
        migrations.AddField(
            model_name="charge",
            name="takes_back",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.CreateModel(
            name="PriceOverride",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("model", models.CharField(max_length=128)),
                ("context", models.CharField(blank=True, default="", max_length=60)),
                ("input", models.DecimalField(decimal_places=4, max_digits=14)),
                ("cache_write_5m", models.DecimalField(decimal_places=4, max_digits=14)),
                ("cache_write_1h", models.DecimalField(decimal_places=4, max_digits=14)),
                ("cache_read", models.DecimalField(decimal_places=4, max_digits=14)),
                ("output", models.DecimalField(decimal_places=4, max_digits=14)),
                ("web_search", models.DecimalField(decimal_places=4, max_digits=14)),
                ("valid_from", models.DateTimeField(blank=True, null=True)),
                ("valid_to", models.DateTimeField(blank=True, null=True)),
                ("revision", models.PositiveIntegerField(default=1)),
                ("set_by", models.CharField(max_length=150)),
                ("set_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "ordering": [
                    "model",
                    "context",
                    models.OrderBy(models.F("valid_from"), nulls_first=True),
                    "id",
                ],
                "permissions": [("price", "Can set prices")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("cache_read__gte", 0),
                            ("cache_write_1h__gte", 0),
                            ("cache_write_5m__gte", 0),
                            ("input__gte", 0),
                            ("output__gte", 0),
                            ("web_search__gte", 0),
                        ),
                        name="override_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("valid_from__isnull", True),
                            ("valid_to__isnull", True),
                            ("valid_to__gte", models.F("valid_from")),
                            _connector="OR",
                        ),
                        name="override_ends_after_its_start",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Repricing",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("dry_run", "Dry run"),
                            ("applying", "Being applied"),
                            ("applied", "Applied"),
                        ],
                        default="dry_run",
                        max_length=8,
                    ),
                ),
                ("since", models.DateTimeField()),
                ("until", models.DateTimeField()),
                ("model", models.CharField(blank=True, default="", max_length=128)),
                ("agent", models.CharField(blank=True, default="", max_length=64)),
                ("prices", models.CharField(max_length=120)),
                ("digest", models.CharField(max_length=64)),
                ("run_count", models.PositiveIntegerField(default=0)),
                ("charge_count", models.PositiveIntegerField(default=0)),
                ("before", models.BigIntegerField(default=0)),
                ("after", models.BigIntegerField(default=0)),
                ("made_by", models.CharField(max_length=150)),
                ("made_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("applied_by", models.CharField(blank=True, default="", max_length=150)),
                ("applied_at", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("reason", models.CharField(blank=True, default="", max_length=300)),
            ],
            options={
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state", "applying")),
                        fields=("state",),
                        name="repricing_one_at_a_time",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["dry_run", "applying", "applied"])),
                        name="repricing_state_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PriceChange",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("revision", models.PositiveIntegerField()),
                (
                    "what",
                    models.CharField(
                        choices=[
                            ("set", "Set"),
                            ("changed", "Changed"),
                            ("ended", "Ended"),
                            ("withdrawn", "Withdrawn"),
                        ],
                        max_length=9,
                    ),
                ),
                ("before", models.TextField(blank=True, default="")),
                ("after", models.TextField()),
                ("actor", models.CharField(max_length=150)),
                ("reason", models.CharField(max_length=300)),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "override",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="changes",
                        to="runs.priceoverride",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(fields=("override", "revision"), name="price_change_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="RepricingLine",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("model", models.CharField(max_length=128)),
                ("simulated", models.BooleanField()),
                ("charges", models.PositiveIntegerField()),
                ("newly_priced", models.PositiveIntegerField(default=0)),
                ("newly_unpriced", models.PositiveIntegerField(default=0)),
                ("before", models.BigIntegerField()),
                ("after", models.BigIntegerField()),
                ("digest", models.CharField(max_length=64)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("planned", "Planned"),
                            ("applied", "Applied"),
                            ("changed", "Changed meanwhile"),
                        ],
                        default="planned",
                        max_length=7,
                    ),
                ),
                (
                    "repricing",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="lines",
                        to="runs.repricing",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="repricing_lines",
                        to="runs.run",
                    ),
                ),
            ],
            options={
                "ordering": ["run_id", "model"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", "planned")),
                        fields=["repricing", "run"],
                        name="repricing_left",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("repricing", "run", "model"), name="repricing_line_once")
                ],
            },
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("unpriced_calls__gt", 0)),
                fields=["-created_at", "-id"],
                name="run_unpriced",
            ),
        ),
        migrations.RunPython(name_contexts, migrations.RunPython.noop, elidable=True),
    ]
