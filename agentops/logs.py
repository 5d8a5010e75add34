"""What the log shows."""

from __future__ import annotations

import logging


class OneLine(logging.Filter):
    """Drops the traceback of what a client did wrong (a status below 500); errors of ours keep theirs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, without its traceback where the client is to blame."""
        if getattr(record, "status_code", 400) < 500:
            record.exc_info = None
        return True
