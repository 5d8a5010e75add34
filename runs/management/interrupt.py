"""Ctrl-C and SIGTERM ask to stop; asked again, the process does not wait."""

from __future__ import annotations

import os
import signal
import threading
import time

AGAIN_SECONDS = 1.0  # a launcher may pass one Ctrl-C on twice: that is not impatience


class Interrupt:
    """Within it, the first signal sets an event, and one after a second ends the process at once.

    Ending at once loses nothing: what was committed is the run, and the next process goes on from there.
    """

    def __enter__(self) -> threading.Event:
        self._asked = threading.Event()
        self._asked_at = 0.0
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self._asked

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, *_: object) -> None:
        if not self._asked.is_set():
            self._asked_at = time.monotonic()
            self._asked.set()
        elif time.monotonic() - self._asked_at > AGAIN_SECONDS:
            os._exit(130)
