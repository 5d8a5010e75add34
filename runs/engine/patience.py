"""What an act brought is kept while the database does not answer, as long as the lease would be."""

from __future__ import annotations

import logging
import time

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from runs.engine.acts import Record

logger = logging.getLogger(__name__)

UNREACHABLE = (OperationalError, InterfaceError)
AGAIN_SECONDS = 0.5


class Patience:
    """Of one driver: it lasts for the time of a lease, and begins anew whenever something was stored."""

    def __init__(self) -> None:
        self._since: float | None = None

    def renew(self) -> None:
        """The database answers."""
        self._since = None

    def wait(self, error: Exception, record: Record | None) -> None:
        """Wait a moment before the next try. Raises the error when there was nothing but errors for too long.

        What came of a change is kept as evidence then, if that can be written.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since < settings.AGENTOPS_LEASE_SECONDS:
            logger.warning("the database does not answer, a driver tries again: %s", error)
            connection.close()  # it may be this connection that is broken
            time.sleep(AGAIN_SECONDS)
            return
        try:
            if record is not None:
                record.when_lost()
        except UNREACHABLE:
            logger.warning("what came of an act of a run that is left alone could not be kept")
        raise error
