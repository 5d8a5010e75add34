"""Does the database answer, and does it have the tables this version needs?"""

from __future__ import annotations

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor


def what_is_wrong() -> str:
    """A sentence that says what to do, or "" when all is well."""
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        return f"The database does not answer ({type(error).__name__}). Check DATABASE_URL and that it runs."
    if missing:
        return f"{len(missing)} migrations are not applied. Run: python manage.py migrate"
    return ""
