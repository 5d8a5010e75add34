"""Closes months and writes summaries of costs when they are due: a thread beside the heart of each worker."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict
from datetime import datetime

from django.db import connections
from django.utils import timezone

from runs import pool
from runs.actions.statements import close_month
from runs.actions.summaries import due_summaries, send_summary
from runs.reading.statement_digest import VERSION, digest_of, months_to_close
from runs.reading.summary_mail import summary_facts

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0


class Bookkeeper:
    """Looks for what is due while it is open. What it leaves, another worker or the next start does."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="bookkeeper", daemon=True)

    def __enter__(self) -> Bookkeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._stop.is_set():
            try:
                keep_books(timezone.now())
            except Exception as error:  # whatever it is, the next look may go well
                logger.warning("the books could not be kept, trying again: %s", error)
                connections.close_all()
            pool.give_back()
            self._stop.wait(LOOK_SECONDS)
        connections.close_all()


def keep_books(now: datetime) -> int:
    """Write the summaries that are due and close the months that are over; returns how many summaries.

    What they say is read before their transaction, and is the same whoever reads it.
    """
    written, told = 0, dict[tuple[datetime, datetime], dict[str, object]]()
    for due in due_summaries(now):
        period = due.since, due.until
        if period not in told:
            told[period] = summary_facts(due.every, due.since, due.until, now=now)
        written += send_summary(due, told[period])
    for month in months_to_close(now):
        close_month(month, **asdict(digest_of(month)), version=VERSION)
    return written
