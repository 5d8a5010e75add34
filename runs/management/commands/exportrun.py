"""manage.py exportrun"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from runs.management.startup import prepare_database, run_named
from runs.reading.export import FORMS, log_text


class Command(BaseCommand):
    help = "Print the whole log of one run as JSON."

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The run's request id, and which fields to print."""
        parser.add_argument("request_id", metavar="REQUEST_ID")
        parser.add_argument(
            "--format",
            choices=tuple(FORMS),
            default="full",
            help="full: everything; seed: the eight fields of a plain agent script, the reasoning as one "
            "text and the cost as a number",
        )

    def handle(self, *args: Any, request_id: str, format: str, **options: Any) -> None:
        """Look the run up and print it."""
        prepare_database()
        self.stdout.write(log_text(run_named(request_id), format))
