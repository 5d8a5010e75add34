"""An index of the steps that failed, for the page that groups them."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0015_full_text")]

    operations = [
        migrations.AddIndex(
            model_name="step",
            index=models.Index(
                fields=["-ended_at"],
                condition=models.Q(("ended_at__isnull", False), ("status__in", ["failed", "unknown"])),
                name="step_failures",
            ),
        ),
    ]
