"""Goes on with a repricing that somebody has begun: a thread beside the heart of each worker."""

from __future__ import annotations

import logging
import threading

from django.db import connections

from runs import pool
from runs.actions.repricing import apply_some

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
AT_ONCE = 20  # runs between two looks whether to stop


class Repricer:
    """Applies what was begun while it is open. What is left, another worker or the next start does."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="repricer", daemon=True)

    def __enter__(self) -> Repricer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        more = False
        while not self._stop.wait(0 if more else LOOK_SECONDS):
            try:
                more = apply_some(most=AT_ONCE, should_stop=self._stop.is_set)
            except (
                Exception
            ) as error:  # whatever it is, the next look may go well; what is left stays planned
                logger.warning("a repricing could not be gone on with, trying again: %s", error)
                connections.close_all()
                more = False
            pool.give_back()
        connections.close_all()
