"""manage.py exportrun"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from runs.management.startup import prepare_database, run_named
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
        self.stdout.write(log_text(run_named(request_id)))
