"""manage.py checkcosts"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand

from runs import actions
from runs.management.startup import prepare_database
from runs.reading.cost_check import check_costs, check_reports


class Command(BaseCommand):
    help = (
        "Compare the sums of every hour and day with the ledger, and the cost reports that are made of them "
        "in several time zones. Exit status 1 when one differs."
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
        sums = self._print("hours and days", check_costs())
        if sums:
            self.stdout.write("Count them anew with: manage.py checkcosts --again")
        if sums + self._print("reports", check_reports()):
            sys.exit(1)

    def _print(self, what: str, checked: Iterable[tuple[Any, str]]) -> int:
        """Print each difference, and how many there are, which is returned."""
        sentences = [sentence for _, sentence in checked]
        wrong = [sentence for sentence in sentences if sentence]
        for line in (*wrong, f"{len(sentences)} {what} checked, {len(wrong)} differ from the ledger"):
            self.stdout.write(line)
        return len(wrong)
