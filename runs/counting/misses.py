"""Why input was not read from the cache, told from what is recorded of a call and the one before it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

# Prompts below these many tokens are not cached, whatever is asked for. The first name that fits counts.
SMALLEST_CACHED = (
    ("5-5", 512),
    ("opus-4-8", 1024),
    ("opus-4", 4096),
    ("haiku-4-5", 4096),
    ("fable-5", 2048),
)
USUAL_SMALLEST = 1024
SHORT, LONG = timedelta(minutes=5), timedelta(hours=1)


class Miss(StrEnum):
    """Why tokens were paid for as new ones."""

    FIRST = "first"  # the first turn of a run: nothing was sent before
    HAND_OVER = "hand_over"  # the first turn of a run that goes on with another one's summary
    NEW = "new"  # what came since the turn before
    TAIL = "tail"  # sent by the turn before behind the part that it had cached
    SMALL = "small"
    MODEL = "model"
    OFF = "off"
    PAUSE = "pause"
    CHANGED = "changed"
    UNREAD = "unread"  # written to the cache by the last turn of a run, which nothing reads


UNAVOIDABLE = frozenset({Miss.FIRST, Miss.NEW})


@dataclass(frozen=True)
class Sent:
    """One answered call: its model, when it began and ended, and its tokens in the order of the ledger."""

    model: str
    began: datetime
    ended: datetime
    tokens: Sequence[int]

    @property
    def prompt(self) -> int:
        return self.tokens[0] + self.tokens[1] + self.tokens[2] + self.tokens[3]


def smallest_cached(model: str) -> int:
    """Tokens that a prompt of this model needs to be cached at all."""
    return next((size for name, size in SMALLEST_CACHED if name in model), USUAL_SMALLEST)


def misses(call: Sent, before: Sent | None, *, handed_over: bool) -> list[tuple[Miss, int]]:
    """The tokens of a prompt that were not read from the cache, by reason.

    What the call before had sent as well could have been read; the rest is new.
    """
    read = call.tokens[3]
    sent = call.prompt - read
    if before is None:
        return [(Miss.HAND_OVER if handed_over else Miss.FIRST, sent)] if sent else []
    old = min(call.prompt, before.prompt)
    missed = min(sent, max(0, old - read))
    reason = _whole(call, before)
    if reason is not None:
        parts = [(reason, missed)]
    else:
        lost = min(missed, max(0, min(old, sum(before.tokens[1:4])) - read))
        lifetime = LONG if before.tokens[2] else SHORT
        late = call.began - before.ended > lifetime
        parts = [(Miss.PAUSE if late else Miss.CHANGED, lost), (Miss.TAIL, missed - lost)]
    return [(reason, tokens) for reason, tokens in [(Miss.NEW, sent - missed), *parts] if tokens]


def _whole(call: Sent, before: Sent) -> Miss | None:
    """Why nothing at all of what the call before had sent could be read."""
    if call.model != before.model:
        return Miss.MODEL
    if before.prompt < smallest_cached(call.model):
        return Miss.SMALL
    return None if any(before.tokens[1:4]) else Miss.OFF
