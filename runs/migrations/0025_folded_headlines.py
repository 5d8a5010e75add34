"""Headlines without case and accents, so that the history of approvals is searched like everything else."""

from typing import Any

from django.db import migrations, models

from runs.tokens import fold


def fill_searched(apps: Any, schema_editor: Any) -> None:
    approvals = apps.get_model("runs", "Approval").objects
    pks = approvals.order_by("pk").values_list("pk", flat=True)
    after = 0
    while some := list(pks.filter(pk__gt=after)[:500]):
        rows = list(approvals.filter(pk__in=some).only("headline"))
        for row in rows:
            row.searched = fold(row.headline)
        approvals.bulk_update(rows, ["searched"])
        after = some[-1]


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0023_statements_and_summaries"),
    ]

    operations = [
        migrations.AddField(
            model_name="approval",
            name="searched",
            field=models.TextField(blank=True, default=""),
        ),
        migrations.RunPython(fill_searched, migrations.RunPython.noop),
    ]
