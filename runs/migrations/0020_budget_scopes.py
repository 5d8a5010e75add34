"""Budgets of users and tags, by the week, with thresholds at which people are told."""

from __future__ import annotations

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import runs.models.budget


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0019_charges"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="BudgetHold",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "at_limit",
                    models.CharField(
                        choices=[
                            ("wrap_up", "Wrap up"),
                            ("pause", "Pause and ask"),
                            ("notify", "Only notify"),
                        ],
                        max_length=8,
                    ),
                ),
                ("at", models.DateTimeField()),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="BudgetNotice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("revision", models.PositiveIntegerField()),
                ("starts_on", models.DateField()),
                ("simulated", models.BooleanField()),
                ("threshold", models.PositiveIntegerField()),
                ("limit", models.CharField(max_length=10)),
                ("used", models.DecimalField(decimal_places=10, max_digits=30)),
                ("of", models.DecimalField(decimal_places=10, max_digits=30)),
                ("was_full", models.BooleanField(default=False)),
                ("at", models.DateTimeField()),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.AlterModelOptions(
            name="budget",
            options={
                "ordering": ["scope", "agent", "user", "tag", "period", "tool"],
                "permissions": [("budget", "Can set budgets")],
            },
        ),
        migrations.RemoveConstraint(
            model_name="budget",
            name="budget_once",
        ),
        migrations.RemoveConstraint(
            model_name="budget",
            name="budget_scope_known",
        ),
        migrations.RemoveConstraint(
            model_name="budget",
            name="budget_period_known",
        ),
        migrations.RemoveConstraint(
            model_name="budget",
            name="budget_at_limit_known",
        ),
        migrations.AddField(
            model_name="budget",
            name="tag",
            field=models.CharField(blank=True, default="", max_length=40),
        ),
        migrations.AddField(
            model_name="budget",
            name="thresholds",
            field=models.JSONField(default=runs.models.budget.usual_thresholds),
        ),
        migrations.AddField(
            model_name="budget",
            name="user",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="budgets",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="spending",
            name="noticed",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AlterField(
            model_name="budget",
            name="at_limit",
            field=models.CharField(
                choices=[("wrap_up", "Wrap up"), ("pause", "Pause and ask"), ("notify", "Only notify")],
                default="wrap_up",
                max_length=8,
            ),
        ),
        migrations.AlterField(
            model_name="budget",
            name="period",
            field=models.CharField(
                choices=[("day", "Day"), ("week", "Week"), ("month", "Month")], max_length=5
            ),
        ),
        migrations.AlterField(
            model_name="budget",
            name="scope",
            field=models.CharField(
                choices=[
                    ("agent", "One agent"),
                    ("user", "One user"),
                    ("tag", "One tag"),
                    ("installation", "Installation"),
                ],
                max_length=12,
            ),
        ),
        migrations.AlterField(
            model_name="notificationdelivery",
            name="notice",
            field=models.CharField(
                choices=[
                    ("approval.asked", "An approval is asked"),
                    ("approval.expiring", "Its deadline is near and nobody decided"),
                    ("approval.decided", "It is approved or rejected"),
                    ("approval.expired", "Its deadline passed"),
                    ("approval.withdrawn", "It is withdrawn: the run ended, or the call changed"),
                    ("call.ended", "The approved call succeeded, failed, or has an unknown outcome"),
                    ("call.relapsed", "What an approved call had cured came back"),
                    ("budget.reached", "A budget reached a threshold, or had no room for a call"),
                    ("test", "A test"),
                ],
                max_length=24,
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.UniqueConstraint(
                condition=models.Q(("user__isnull", True)),
                fields=("scope", "agent", "tag", "period", "tool"),
                name="budget_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.UniqueConstraint(
                condition=models.Q(("user__isnull", False)),
                fields=("user", "period", "tool"),
                name="budget_of_a_user_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("agent__gt", ""), ("scope", "agent"), ("tag", ""), ("user__isnull", True)),
                    models.Q(("agent", ""), ("scope", "user"), ("tag", ""), ("user__isnull", False)),
                    models.Q(("agent", ""), ("scope", "tag"), ("tag__gt", ""), ("user__isnull", True)),
                    models.Q(("agent", ""), ("scope", "installation"), ("tag", ""), ("user__isnull", True)),
                    _connector="OR",
                ),
                name="budget_scope_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.CheckConstraint(
                condition=models.Q(("period__in", ["day", "week", "month"])), name="budget_period_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="budget",
            constraint=models.CheckConstraint(
                condition=models.Q(("at_limit__in", ["wrap_up", "pause", "notify"])),
                name="budget_at_limit_known",
            ),
        ),
        migrations.AddField(
            model_name="budgethold",
            name="budget",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="holds", to="runs.budget"
            ),
        ),
        migrations.AddField(
            model_name="budgethold",
            name="run",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="holds", to="runs.run"
            ),
        ),
        migrations.AddField(
            model_name="budgetnotice",
            name="budget",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="notices",
                to="runs.budget",
            ),
        ),
        migrations.AddField(
            model_name="budgetnotice",
            name="run",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to="runs.run"
            ),
        ),
        migrations.AddConstraint(
            model_name="budgetnotice",
            constraint=models.UniqueConstraint(
                fields=("budget", "starts_on", "simulated", "threshold", "revision"),
                name="budget_notice_once",
            ),
        ),
    ]
