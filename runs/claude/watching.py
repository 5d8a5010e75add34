"""One thread that looks after all turns that stream in this process: deadlines and stop requests.

Whoever reads a response is blocked in the network, possibly for minutes. A second thread per turn could look
meanwhile, but hundreds of turns would need hundreds of them, and each event would pass from one to the other.
Drafts are shown in a thread beside it: who stores one may wait for a lock, and no deadline waits for that.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from runs.claude.interrupting import Interruption, interruptible
from runs.claude.progress import Progress
from runs.claude.turn import Draft
from tools import threads

DRAFT_SECONDS = 0.125  # at most eight drafts a second
ASK_SECONDS = 0.25  # how soon a stop request is noticed while nothing arrives
SHOWING_SECONDS = 0.25  # so long drafts of all turns may take at once; the others are shown the next time
NOTHING = Draft("", "", "")
logger = logging.getLogger(__name__)


class OutOfTime(Exception):
    """The turn has taken as long as it may."""


class StopAsked(Exception):
    """`should_stop` said so."""


class Watched:
    """A turn that streams, and who wants to know of it. What a callback raises ends the turn with that."""

    def __init__(
        self,
        progress: Progress,
        *,
        deadline_seconds: float,
        on_draft: Callable[[Draft], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.interruption = Interruption()
        self.shown_at = 0.0
        self._progress = progress
        self._deadline = time.monotonic() + deadline_seconds
        self._on_draft = on_draft
        self._should_stop = should_stop
        self._seen = self._shown = NOTHING

    def seconds_left(self) -> float:
        """Until its deadline; less than nothing when it has passed."""
        return self._deadline - time.monotonic()

    def look(self, *, ask: bool) -> None:
        """Interrupt the turn when it is out of time or nobody wants it any more."""
        if self.seconds_left() <= 0:
            self.interruption.interrupt(OutOfTime())
            return
        try:
            if ask and self._should_stop():
                self.interruption.interrupt(StopAsked())
        except BaseException as error:
            self.interruption.interrupt(error)

    def show(self) -> None:
        """Hand on what is new since the last time. A turn that ends while it begins needs no draft."""
        draft, seen = self._progress.draft, self._seen
        self._seen = draft
        if seen == NOTHING or draft == self._shown:
            return
        self._shown, self.shown_at = draft, time.monotonic()
        try:
            self._on_draft(draft)
        except BaseException as error:
            self.interruption.interrupt(error)


class Watcher:
    """Looks after turns while there are any, in a thread that is given back when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: set[Watched] = set()
        self._is_looking = False
        self._showing: threads.Job | None = None

    @contextmanager
    def over(self, turn: Watched) -> Iterator[None]:
        """Look after this turn for the length of the block, in which this thread reads its response."""
        with self._lock:
            if not self._is_looking:
                threads.start(self._look_after_all)
                self._is_looking = True
            self._turns.add(turn)
        try:
            with interruptible(turn.interruption):
                yield
        finally:
            with self._lock:
                self._turns.discard(turn)

    def _look_after_all(self) -> None:
        asked_at = 0.0
        while True:
            time.sleep(DRAFT_SECONDS)
            with self._lock:
                turns = list(self._turns)
                self._is_looking = bool(turns)
            if not turns:
                return
            ask = time.monotonic() - asked_at >= ASK_SECONDS
            if ask:
                asked_at = time.monotonic()
            try:
                for turn in turns:
                    turn.look(ask=ask)
                if self._showing is None or not self._showing.is_running:
                    self._showing = threads.start(partial(_show, turns))
            except Exception:
                logger.exception("turns that stream could not be looked after this time")


def _show(turns: list[Watched]) -> None:
    until = time.monotonic() + SHOWING_SECONDS
    try:
        for turn in sorted(turns, key=lambda turn: turn.shown_at):
            if time.monotonic() < until:
                turn.show()
    except Exception:
        logger.exception("drafts could not be shown this time")


def _forget() -> None:
    """A forked process has the turns and not the thread that looked after them."""
    watcher.__init__()  # type: ignore[misc]


watcher = Watcher()
os.register_at_fork(after_in_child=_forget)
