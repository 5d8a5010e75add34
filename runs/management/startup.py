"""What every command makes sure of before it starts."""

from __future__ import annotations

import getpass

from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from runs.engine import model
from runs.models import Run


def prepare_database() -> None:
    """Bring an SQLite file up to date; elsewhere ask for `migrate`. CommandError says what to do."""
    try:
        if connection.vendor == "sqlite":
            settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if pending and connection.vendor == "sqlite":
            call_command("migrate", verbosity=0, interactive=False)
        elif pending:
            raise CommandError(f"{len(pending)} migrations are not applied. Run: manage.py migrate")
        Run.objects.filter(pk=0).update(reason="")  # writes nothing, and fails where nothing can be written
    except (DatabaseError, OSError) as error:
        where = connection.settings_dict["NAME"]
        raise CommandError(
            f"Cannot use the database {where}: {error}. Make it writable for this user, or set "
            "AGENTOPS_DATA to another folder or DATABASE_URL to another database."
        ) from error


def check_model() -> None:
    """CommandError when no model could answer new runs."""
    try:
        model.check_available()
    except model.NoModel as error:
        raise CommandError(str(error)) from error


def operating_system_user() -> User:
    """The user who stands for whoever runs this command: made on first use, without a password."""
    user, created = User.objects.get_or_create(username=getpass.getuser())
    if created:
        user.set_unusable_password()
        user.save(update_fields=["password"])
        allow_operating(user)
    return user


def allow_operating(user: User) -> None:
    """Give this user the permissions to start runs and to decide approvals."""
    user.user_permissions.add(
        *Permission.objects.filter(content_type__app_label="runs", codename__in=["decide", "start"])
    )
