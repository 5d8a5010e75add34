"""What a model or a tool said, of any size: a bounded beginning for the page, all of it as a download."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db.models import F, QuerySet
from django.db.models.functions import Left, Length, Substr

from runs.models import Run, Step

# Characters. What is longer is shown by its beginning, and not taken apart.
WHOLE = 200_000
BEGINNING = 20_000
PIECE = 500_000  # of a download that is read at once
PARTS = ("arguments", "result", "reasoning", "text", "message")


@dataclass(frozen=True)
class Payload:
    """One text of a step: whole, or its beginning."""

    part: str
    text: str
    characters: int  # of the whole

    @property
    def is_whole(self) -> bool:
        return len(self.text) == self.characters

    def __bool__(self) -> bool:
        return bool(self.characters)


def with_beginnings(steps: QuerySet[Step], parts: Iterable[str]) -> QuerySet[Step]:
    """The same steps without these texts, and with as much of them as a page may show."""
    parts = tuple(parts)
    beginnings = {f"{part}_shown": Left(part, WHOLE) for part in parts}
    lengths = {f"{part}_characters": Length(part) for part in parts}
    return steps.defer(*PARTS).annotate(**beginnings, **lengths)


def payload(step: Step, part: str) -> Payload:
    """This text of a step that was read through `with_beginnings`."""
    shown: str = getattr(step, f"{part}_shown")
    characters: int = max(getattr(step, f"{part}_characters"), len(shown))
    return Payload(part, shown if characters == len(shown) else shown[:BEGINNING], characters)


def payload_size(run: Run, seq: int, part: str) -> int | None:
    """Characters of this text, one of PARTS; None when the run has no such step."""
    found = run.steps.filter(seq=seq).values_list(Length(part), flat=True)
    return found.first()


def payload_pieces(run: Run, seq: int, part: str, characters: int) -> Iterator[str]:
    """The text in pieces, one query each: many megabytes are never held at once."""
    for begin in range(1, characters + 1, PIECE):
        pieces = run.steps.filter(seq=seq).annotate(piece=Substr(F(part), begin, PIECE))
        yield pieces.values_list("piece", flat=True).get()
