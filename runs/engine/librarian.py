"""Keeps the full-text index up with what runs write: a thread beside the heart of each worker."""

from __future__ import annotations

import logging
import threading
import time

from django.db import connections

from runs import pool
from runs.actions.indexing import Indexer

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.3
IDLE_SECONDS = 1.5  # the longest pause while nothing is written
REST = 4  # times as long as a pass took; a worker that drives many runs makes fewer and larger ones
RETRY_SECONDS = 2.0


class Librarian:
    """Follows the events while it is open. What is left at the end, another worker or the next start adds."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="librarian", daemon=True)

    def __enter__(self) -> Librarian:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        indexer = Indexer()
        pause = LOOK_SECONDS
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                progress = indexer.follow()
                # Those who drive runs come first, but the index must not be left behind by a busy worker:
                # a fifth of the time is spent here, and half of it while a pass leaves something over.
                took = time.monotonic() - began
                rested = min(IDLE_SECONDS, pause * 2) if not progress.events else LOOK_SECONDS
                pause = took if progress.is_behind else max(rested, REST * took)
            except Exception as error:  # whatever it is, the next pass may go well; the events stay
                logger.warning("the search index could not be kept up, trying again: %s", error)
                connections.close_all()
                pause = RETRY_SECONDS
            pool.give_back()
        connections.close_all()
