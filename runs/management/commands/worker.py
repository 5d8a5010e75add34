"""manage.py worker"""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from runs.engine.model import disconnect
from runs.engine.worker import Worker
from runs.management.startup import check_model, prepare_database


class Command(BaseCommand):
    help = "Drive queued runs until SIGTERM or Ctrl-C, then finish the current move of each run and leave."

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """One option: how many runs at once."""
        parser.add_argument("--concurrency", type=int, default=4, metavar="N", help="runs driven at once")

    def handle(self, *args: Any, concurrency: int, **options: Any) -> None:
        """Work until told to stop."""
        if not 1 <= concurrency <= 256:
            raise CommandError("--concurrency takes a number from 1 to 256.", returncode=2)
        prepare_database()
        check_model()
        worker = Worker(concurrency=concurrency)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        self.stdout.write(f"worker {worker.name} drives up to {concurrency} runs; Ctrl-C stops it")
        self.stdout.flush()
        try:
            worker.run()
        finally:
            disconnect()
        self.stdout.write("worker stopped; unfinished runs are in the queue")
