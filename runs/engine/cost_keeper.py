"""Keeps the sums of cost reports up with the ledger: a thread beside the heart of each worker."""

from __future__ import annotations

import logging
import threading
import time

from django.db import connections

from runs import pool
from runs.actions.sealing import seal_hours

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0


class CostKeeper:
    """Seals hours that are over, a few at a time, while it is open."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="costs", daemon=True)

    def __enter__(self) -> CostKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        pause = 1.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                tried = seal_hours()
                # Those who drive runs come first: at most a third of the time is spent here.
                pause = 2 * (time.monotonic() - began) if tried else LOOK_SECONDS
            except Exception as error:  # whatever it is, the next pass may go well; reports stay right
                logger.warning("sums of costs could not be kept up, trying again: %s", error)
                connections.close_all()
                pause = LOOK_SECONDS
            pool.give_back()
        connections.close_all()
