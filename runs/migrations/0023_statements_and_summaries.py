"""Fingerprints of monthly statements, summaries of costs by mail, and corrections found by their month."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0022_cost_sums"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="CostSummary",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("address", models.EmailField(blank=True, default="", max_length=254)),
                (
                    "every",
                    models.CharField(
                        choices=[("week", "Every week"), ("month", "Every month")], max_length=5
                    ),
                ),
                ("told_until", models.DateTimeField()),
                ("asked_at", models.DateTimeField(blank=True, null=True)),
                ("changed_by", models.CharField(max_length=150)),
                ("changed_at", models.DateTimeField()),
            ],
            options={
                "ordering": ["id"],
            },
        ),
        migrations.CreateModel(
            name="Statement",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("month", models.DateField(unique=True)),
                ("entries", models.PositiveBigIntegerField()),
                ("amount", models.BigIntegerField()),
                ("simulated_amount", models.BigIntegerField()),
                ("sha256", models.CharField(max_length=64)),
                ("version", models.PositiveSmallIntegerField(default=1)),
                ("closed_at", models.DateTimeField()),
            ],
            options={
                "ordering": ["-month"],
            },
        ),
        migrations.AddField(
            model_name="notificationdelivery",
            name="recipients",
            field=models.TextField(blank=True, default=""),
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
                    ("costs.summary", "A summary of costs"),
                    ("test", "A test"),
                ],
                max_length=24,
            ),
        ),
        migrations.AddIndex(
            model_name="charge",
            index=models.Index(
                condition=models.Q(("number__gt", 0)), fields=["booked_at"], name="charge_corrections"
            ),
        ),
        migrations.AddField(
            model_name="costsummary",
            name="channel",
            field=models.OneToOneField(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="cost_summary",
                to="runs.notificationchannel",
            ),
        ),
        migrations.AddField(
            model_name="costsummary",
            name="user",
            field=models.OneToOneField(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="cost_summary",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddConstraint(
            model_name="statement",
            constraint=models.CheckConstraint(
                condition=models.Q(("month__day", 1)), name="statement_of_a_whole_month"
            ),
        ),
        migrations.AddConstraint(
            model_name="costsummary",
            constraint=models.CheckConstraint(
                condition=models.Q(("every__in", ["week", "month"])), name="summary_every_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="costsummary",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("address__gt", ""), ("channel__isnull", True), ("user__isnull", False)),
                    models.Q(("address", ""), ("channel__isnull", False), ("user__isnull", True)),
                    _connector="OR",
                ),
                name="summary_of_one_subscriber",
            ),
        ),
    ]
