"""Headlines of questions as a column of their own, so that the history can be searched; time on the card."""

import json
from typing import Any

from django.db import migrations, models


def fill_headlines(apps: Any, schema_editor: Any) -> None:
    approvals = apps.get_model("runs", "Approval").objects.only("preview")
    for approval in approvals.iterator(chunk_size=500):
        headline = str(json.loads(approval.preview).get("headline") or "")
        approval.headline = headline.encode("utf-8", "replace").decode().replace("\0", "")[:300]
        approval.save(update_fields=["headline"])


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0006_notifications"),
    ]

    operations = [
        migrations.AddField(
            model_name="approval",
            name="headline",
            field=models.CharField(blank=True, default="", max_length=300),
        ),
        migrations.AddField(
            model_name="vote",
            name="seconds_on_card",
            field=models.FloatField(blank=True, null=True),
        ),
        migrations.RunPython(fill_headlines, migrations.RunPython.noop),
    ]
