"""manage.py reindexsearch"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from runs.actions.indexing import rebuild_index
from runs.management.startup import prepare_database


class Command(BaseCommand):
    help = "Build the full-text index anew from the rows of all runs. Workers and pages may go on meanwhile."
    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        """Print how far it is."""
        prepare_database()
        count = 0
        for done, count in rebuild_index():
            if done % 3_000 == 0:
                self.stdout.write(f"{done:,} of {count:,} runs")
        self.stdout.write(f"The index holds {count:,} runs.")
