"""manage.py worker"""

from __future__ import annotations

import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from runs.engine.model import disconnect
from runs.engine.worker import Worker
from runs.management.interrupt import Interrupt
from runs.management.memory import share_heaps
from runs.management.startup import check_model, prepare_database


class Command(BaseCommand):
    help = (
        "Drive queued runs until SIGTERM or Ctrl-C, then finish the current move of each run and leave. "
        "A second signal leaves at once."
    )

    # Checks would ask the database before this command can say what is wrong with it.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """One option: how many runs at once."""
        parser.add_argument("--concurrency", type=int, default=4, metavar="N", help="runs driven at once")

    def handle(self, *args: Any, concurrency: int, **options: Any) -> None:
        """Work until told to stop."""
        if not 1 <= concurrency <= 256:
            raise CommandError("--concurrency takes a number from 1 to 256.", returncode=2)
        share_heaps()
        prepare_database()
        check_model()
        connections.close_all()  # this thread needs none any more
        worker = Worker(concurrency=concurrency)
        with Interrupt() as asked:
            driving = threading.Thread(target=worker.run, name="worker")
            driving.start()
            self.stdout.write(f"worker {worker.name} drives up to {concurrency} runs; Ctrl-C stops it")
            self.stdout.flush()
            try:
                while driving.is_alive() and not asked.wait(1):
                    pass
            finally:
                worker.stop()
                driving.join()
                disconnect()
            if not asked.is_set():
                raise CommandError("The worker ended by itself, which is a mistake of ours: see its log.")
        self.stdout.write("worker stopped; unfinished runs are in the queue")
