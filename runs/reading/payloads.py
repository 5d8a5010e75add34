"""What a model or a tool said, of any size: a bounded beginning for the page, all of it as a download."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import F, QuerySet
from django.db.models.functions import Left, Length, Substr

from runs.models import Run, Step

# Characters. What is longer is shown by its beginning: JSON is not taken apart then.
WHOLE = 200_000  # of JSON, whose tree is bounded by itself
BEGINNING = 20_000
BEGINNINGS = {
    "arguments": BEGINNING, "result": BEGINNING, "question": BEGINNING, "answer": 10_000, "reasoning": 10_000,
    "text": 10_000, "error": 4_000, "explanation": 4_000,
}  # fmt: skip
PIECE = 500_000  # of a download that is read at once
JSON = frozenset({"arguments", "result"})
PARTS = ("arguments", "result", "reasoning", "text", "message", "error")
# Texts of a run by the names that addresses use.
RUN_PARTS = {"question": "user_query", "answer": "final_response", "explanation": "explanation"}


@dataclass(frozen=True)
class Payload:
    """One text of a step or a run: whole, or its beginning."""

    part: str
    text: str
    characters: int  # of the whole

    @property
    def is_whole(self) -> bool:
        return len(self.text) == self.characters

    def __bool__(self) -> bool:
        return bool(self.characters)


def beginning(part: str, text: str) -> Payload:
    """As much of this text of a run as a page may show, cut before anything is drawn of it."""
    return Payload(part, text[: BEGINNINGS[part]], len(text))


def with_beginnings(steps: QuerySet[Step], parts: Iterable[str]) -> QuerySet[Step]:
    """The same steps without these texts, and with as much of them as a page may show."""
    parts = tuple(parts)
    beginnings = {f"{part}_shown": Left(part, _most(part)) for part in parts}
    lengths = {f"{part}_characters": Length(part) for part in parts}
    return steps.defer(*PARTS).annotate(**beginnings, **lengths)


def payload(step: Step, part: str) -> Payload:
    """This text of a step that was read through `with_beginnings`."""
    shown: str = getattr(step, f"{part}_shown")
    characters: int = max(getattr(step, f"{part}_characters"), len(shown))
    return Payload(part, shown if characters == len(shown) else shown[: BEGINNINGS[part]], characters)


def _most(part: str) -> int:
    return WHOLE if part in JSON else BEGINNINGS[part]


def payload_size(run: Run, seq: int, part: str) -> int | None:
    """Characters of this text, one of PARTS; None when the run has no such step."""
    found = run.steps.filter(seq=seq).values_list(Length(part), flat=True)
    return found.first()


def payload_pieces(run: Run, seq: int, part: str, characters: int) -> Iterator[str]:
    """The text in pieces, one query each: many megabytes are never held at once."""
    return _pieces(run.steps.filter(seq=seq), part, characters)


def run_text(run: Run, part: str) -> Iterator[str]:
    """One of RUN_PARTS in pieces."""
    found = Run.objects.filter(pk=run.pk)
    return _pieces(found, RUN_PARTS[part], found.values_list(Length(RUN_PARTS[part]), flat=True).get())


def _pieces(row: QuerySet[Any], column: str, characters: int) -> Iterator[str]:
    for begin in range(1, characters + 1, PIECE):
        yield row.annotate(piece=Substr(F(column), begin, PIECE)).values_list("piece", flat=True).get()
