"""manage.py checkruns"""

from __future__ import annotations

import sys
import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runs.management.startup import prepare_database
from runs.models import Run
from runs.reading.budgets import ledger_contradictions
from runs.reading.invariants import contradictions


class Command(BaseCommand):
    help = (
        "Check the rows of runs against each other: event chains, totals, results, approvals, states. "
        "Without ids, also check the ledgers of shared budgets against the steps."
    )
    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which runs; all by default."""
        parser.add_argument("request_id", nargs="*", metavar="REQUEST_ID", help="only these runs")

    def handle(self, *args: Any, request_id: list[str], **options: Any) -> None:
        """Print each contradiction; exit status 1 when there is one."""
        prepare_database()
        runs = Run.objects.order_by("pk")
        try:
            wanted = [uuid.UUID(text) for text in request_id]
        except ValueError as error:
            raise CommandError("A request id looks like 8f2c41d0-1b2c-4d3e-8f90-a1b2c3d4e5f6.") from error
        if wanted:
            runs = runs.filter(request_id__in=wanted)
        checked = wrong = 0
        for run in runs.iterator(chunk_size=100):
            checked += 1
            found = contradictions(run)
            wrong += bool(found)
            for sentence in found:
                self.stdout.write(f"run {run.request_id}: {sentence}")
        ledgers = [] if wanted else ledger_contradictions()
        for sentence in ledgers:
            self.stdout.write(sentence)
        self.stdout.write(f"{checked} runs checked, {wrong} with contradictions")
        if wrong or ledgers or (wanted and checked < len(wanted)):
            sys.exit(1)
