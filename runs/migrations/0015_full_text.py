"""The table of the full-text index. It has no model: its rows are tokens, and each database has its own kind."""

from django.db import migrations


def create(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        # Tokens outside of the row: what is found by the index is counted and sorted without reading them.
        schema_editor.execute(
            "CREATE TABLE runs_searchentry (id bigint PRIMARY KEY, document tsvector NOT NULL) "
            "WITH (toast_tuple_target = 128)"
        )
        schema_editor.execute("CREATE INDEX search_document ON runs_searchentry USING gin (document)")
    else:
        # Without content: the text is in the rows of the steps. Our tokens come already folded and separated.
        schema_editor.execute(
            "CREATE VIRTUAL TABLE runs_searchentry USING fts5 (document, content='', "
            "tokenize=\"ascii tokenchars '=_.-'\")"
        )


def drop(apps, schema_editor):
    schema_editor.execute("DROP TABLE runs_searchentry")


class Migration(migrations.Migration):
    dependencies = [("runs", "0014_find_runs")]

    operations = [migrations.RunPython(create, drop)]
