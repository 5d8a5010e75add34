"""What every command makes sure of before it starts."""

from __future__ import annotations

import getpass
import time
import uuid

from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from runs.engine import model
from runs.models import Run

MIGRATION_TRIES = 50
MIGRATION_PAUSE = 0.2  # seconds


def prepare_database() -> None:
    """Bring an SQLite file up to date; elsewhere ask for `migrate`. CommandError says what to do."""
    try:
        if connection.vendor == "sqlite":
            settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
            _migrate()
        elif pending := _pending():
            raise CommandError(f"{pending} migrations are not applied. Run: manage.py migrate")
        Run.objects.filter(pk=0).update(reason="")  # writes nothing, and fails where nothing can be written
    except (DatabaseError, OSError) as error:
        raise CommandError(_what_to_do(str(error).strip())) from error


def _pending() -> int:
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _migrate() -> None:
    """Apply what is missing. Another process may be doing the same: then wait for it and look again."""
    for patience in range(MIGRATION_TRIES, -1, -1):
        if not _pending():
            return
        try:
            call_command("migrate", verbosity=0, interactive=False)
        except DatabaseError:
            if not patience:
                raise
            time.sleep(MIGRATION_PAUSE)


def _what_to_do(problem: str) -> str:
    if connection.vendor == "sqlite":
        where = connection.settings_dict["NAME"]
        return (
            f"Cannot use the database {where}: {problem}. Make it writable for this user, or set "
            "AGENTOPS_DATA to another folder or DATABASE_URL to another database."
        )
    return f"Cannot use the database of DATABASE_URL: {problem}. Start it, or correct its address."


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
    """Give this user every permission: on their own machine nobody else could give them a missing one."""
    granted = Permission.objects.filter(
        content_type__app_label="runs",
        codename__in=["budget", "decide", "notify", "policy", "price", "start"],
    )
    user.user_permissions.add(*granted)


def run_named(request_id: str) -> Run:
    """The run of this request id; CommandError when it is none (status 2) or there is no such run."""
    try:
        return Run.objects.get(request_id=uuid.UUID(request_id))
    except ValueError as error:
        raise CommandError(
            f"{request_id!r} is not a request id: it looks like 8f2c41d0-1b2c-4d3e-8f90-a1b2c3d4e5f6.",
            returncode=2,
        ) from error
    except Run.DoesNotExist as error:
        raise CommandError(f"There is no run {request_id}.") from error
