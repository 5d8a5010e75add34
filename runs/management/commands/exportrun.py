"""manage.py exportrun"""

from __future__ import annotations

import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runs.management.startup import prepare_database
from runs.models import Run
from runs.reading.export import log_text


class Command(BaseCommand):
    help = "Print the whole log of one run as JSON."

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The run's request id."""
        parser.add_argument("request_id", metavar="REQUEST_ID")

    def handle(self, *args: Any, request_id: str, **options: Any) -> None:
        """Look the run up and print it."""
        prepare_database()
        try:
            run = Run.objects.get(request_id=uuid.UUID(request_id))
        except ValueError as error:
            raise CommandError(
                f"{request_id!r} is not a request id: it looks like 8f2c41d0-1b2c-4d3e-8f90-a1b2c3d4e5f6.",
                returncode=2,
            ) from error
        except Run.DoesNotExist as error:
            raise CommandError(f"There is no run {request_id}.") from error
        self.stdout.write(log_text(run))
