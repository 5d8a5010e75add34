"""Since when a person has had a question before them: a signed note in the form of the vote.

It says how long the card was open, no more: nobody can know what was read. Whoever votes from a page that was
drawn by another program, or from the command line, has none, and that is stored as not known.
"""

from __future__ import annotations

from datetime import datetime

from django.contrib.auth.models import User
from django.core.signing import BadSignature, Signer

from runs.reading.asks import Ask
from runs.reading.words import epoch_ms

_signer = Signer(salt="runs.seen")


def card_seen(user: User, ask: Ask, now: datetime, *, earlier: str = "") -> str:
    """The note for this person and this revision of the question; an earlier one of theirs stays."""
    if earlier and _shown_at(earlier, user, ask) is not None:
        return earlier
    return _signer.sign(f"{_about(user, ask)}{epoch_ms(now)}")


def seconds_on_card(note: str, user: User, ask: Ask, now: datetime) -> float | None:
    """Seconds from the note until now, to the millisecond; None when it is not a note about this."""
    shown_at = _shown_at(note, user, ask)
    return None if shown_at is None else max(0.0, (epoch_ms(now) - shown_at) / 1000)


def _about(user: User, ask: Ask) -> str:
    return f"{ask.pk}.{ask.revision}.{user.pk}."


def _shown_at(note: str, user: User, ask: Ask) -> int | None:
    try:
        text = _signer.unsign(note)
    except BadSignature:
        return None
    about = _about(user, ask)
    return int(text.removeprefix(about)) if text.startswith(about) else None
