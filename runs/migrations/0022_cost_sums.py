"""Sums over the ledger by hour and day, and an index for outliers of an agent."""

from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0021_prices"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="CostAcross",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("hour", models.PositiveIntegerField()),
                ("first_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="CostSeal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("hour", models.PositiveIntegerField()),
                ("hours", models.PositiveSmallIntegerField()),
                ("version", models.PositiveSmallIntegerField()),
                ("sealed", models.BooleanField(default=False)),
            ],
        ),
        migrations.CreateModel(
            name="CostSum",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("hour", models.PositiveIntegerField()),
                ("hours", models.PositiveSmallIntegerField()),
                (
                    "dimension",
                    models.PositiveSmallIntegerField(
                        choices=[
                            (0, "Total"),
                            (1, "Agent"),
                            (2, "Model"),
                            (3, "User"),
                            (4, "Tags"),
                            (5, "Tools"),
                            (6, "Outcome"),
                            (7, "Cache"),
                            (8, "Step"),
                        ]
                    ),
                ),
                ("simulated", models.BooleanField()),
                ("key", models.CharField(blank=True, max_length=900)),
                ("calls", models.BigIntegerField(default=0)),
                ("priced", models.BigIntegerField(default=0)),
                ("unpriced", models.BigIntegerField(default=0)),
                ("unpriced_tokens", models.BigIntegerField(default=0)),
                ("failed", models.BigIntegerField(default=0)),
                ("estimated", models.BigIntegerField(default=0)),
                ("runs", models.BigIntegerField(default=0)),
                ("input_tokens", models.BigIntegerField(default=0)),
                ("cache_write_5m_tokens", models.BigIntegerField(default=0)),
                ("cache_write_1h_tokens", models.BigIntegerField(default=0)),
                ("cache_read_tokens", models.BigIntegerField(default=0)),
                ("output_tokens", models.BigIntegerField(default=0)),
                ("thinking_tokens", models.BigIntegerField(default=0)),
                ("web_searches", models.BigIntegerField(default=0)),
                ("amount", models.BigIntegerField(default=0)),
                ("uncached_amount", models.BigIntegerField(default=0)),
                ("input_amount", models.BigIntegerField(default=0)),
                ("cache_write_5m_amount", models.BigIntegerField(default=0)),
                ("cache_write_1h_amount", models.BigIntegerField(default=0)),
                ("cache_read_amount", models.BigIntegerField(default=0)),
                ("output_amount", models.BigIntegerField(default=0)),
                ("web_search_amount", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                models.F("agent"),
                models.OrderBy(models.F("cost_usd"), descending=True),
                models.OrderBy(models.F("id"), descending=True),
                condition=models.Q(("ended_at__isnull", False)),
                name="run_agent_costliest",
            ),
        ),
        migrations.AddField(
            model_name="costacross",
            name="run",
            field=models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="runs.run"
            ),
        ),
        migrations.AddConstraint(
            model_name="costseal",
            constraint=models.UniqueConstraint(fields=("hours", "hour"), name="cost_seal_once"),
        ),
        migrations.AddIndex(
            model_name="costsum",
            index=models.Index(
                fields=["hours", "dimension", "simulated", "hour", "key", "amount", "unpriced"],
                name="cost_sum_bars",
            ),
        ),
        migrations.AddIndex(
            model_name="costacross",
            index=models.Index(fields=["hour", "first_at", "run"], name="cost_across_hours"),
        ),
    ]
