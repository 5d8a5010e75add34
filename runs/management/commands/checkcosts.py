"""manage.py checkcosts"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from runs import actions
from runs.management.startup import prepare_database
from runs.reading.cost_check import check_costs


class Command(BaseCommand):
    help = (
        "Compare the sums that cost reports read with the ledger, every hour and day of them, and say how "
        "many there are. Exit status 1 when one differs."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Whether to count before the comparison."""
        parser.add_argument(
            "--count", action="store_true", help="first count all hours that are over and not counted yet"
        )
        parser.add_argument("--again", action="store_true", help="first forget all sums and count them anew")

    def handle(self, *args: Any, count: bool, again: bool, **options: Any) -> None:
        """Print each difference; exit status 1 when there is one."""
        prepare_database()
        if again:
            actions.forget_sums()
        while (count or again) and actions.seal_hours():
            pass
        checked = wrong = 0
        for _, sentence in check_costs():
            checked += 1
            if sentence:
                wrong += 1
                self.stdout.write(sentence)
        self.stdout.write(f"{checked} hours and days checked, {wrong} differ from the ledger")
        if wrong:
            self.stdout.write("Count them anew with: manage.py checkcosts --again")
            sys.exit(1)
