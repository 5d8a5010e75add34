"""What a worker lets others know of it, so that people see who works and how its backends are."""

from __future__ import annotations

import logging
import os
import socket

from django.conf import settings
from django.db import connections
from django.utils import timezone

from runs import actions
from tools import boundary

logger = logging.getLogger(__name__)


class Presence:
    """One worker process in the table of workers. Its heart shows it with each beat."""

    def __init__(self, name: str, *, concurrency: int) -> None:
        self._identity = actions.Identity(
            name=name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=settings.VERSION,
            concurrency=concurrency,
            started_at=timezone.now(),
        )

    def show(self, driving: int) -> None:
        """It is there and drives so many runs. Never raises: the leases live by the same heart."""
        try:
            actions.show_worker(self._identity, driving=driving, health=boundary.health())
        except Exception as error:
            logger.warning("this worker could not be shown: %s", error)
            connections.close_all()

    def leave(self) -> None:
        """It ends in good order. Where that cannot be written, it will look lost."""
        try:
            actions.worker_left(self._identity)
        except Exception as error:
            logger.warning("the end of this worker could not be recorded: %s", error)
