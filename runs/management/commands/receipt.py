"""manage.py receipt"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runs.management.startup import prepare_database, run_named
from runs.reading.receipts import NoReceipt, receipt_text


class Command(BaseCommand):
    help = "Print the receipt of one gated call as JSON; docs/verify_receipt.py checks it without a database."

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The run and the number of the step."""
        parser.add_argument("request_id", metavar="REQUEST_ID")
        parser.add_argument("step", metavar="STEP", type=int)

    def handle(self, *args: Any, request_id: str, step: int, **options: Any) -> None:
        """Look the call up and print its receipt; a sentence and status 1 when there is none."""
        prepare_database()
        try:
            self.stdout.write(receipt_text(run_named(request_id), step), ending="")
        except NoReceipt as error:
            raise CommandError(str(error)) from error
