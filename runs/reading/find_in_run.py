"""Text found inside one run, in everything its steps say."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import F, Q, Value
from django.db.models.functions import Greatest, Lower, StrIndex, Substr

from runs.models import Run

# The column, and what a person calls it. In this order a hit is looked for in a step.
PLACES = {
    "name": "name",
    "error": "error",
    "text": "text",
    "arguments": "arguments",
    "result": "result",
    "reasoning": "reasoning",
    "summary": "summary",
}
MAX_HITS = 50
MAX_WORDS = 200  # characters that are looked for
BEFORE = 60
AROUND = 200


@dataclass(frozen=True)
class Hit:
    """One step that holds the text: where, and some of what stands around it."""

    seq: int
    name: str
    place: str
    before: str
    match: str
    after: str


@dataclass(frozen=True)
class Found:
    """The first hits after a step. `more_after` is the step to go on from, when there may be more."""

    words: str
    hits: tuple[Hit, ...]
    more_after: int | None


def find_in_run(run: Run, words: str, after: int = 0) -> Found:
    """Steps after `after` whose texts hold these words, letter case aside: two queries.

    Their payloads stay in the database; only what stands around a hit is read.
    """
    words = words.replace("\0", "").strip()[:MAX_WORDS]
    if not words:
        return Found("", (), None)
    anywhere = Q()
    for column in PLACES:
        anywhere |= Q(**{f"{column}__icontains": words})
    seqs = list(
        run.steps.filter(anywhere, seq__gt=after)
        .order_by("seq")
        .values_list("seq", flat=True)[: MAX_HITS + 1]
    )
    shown = seqs[:MAX_HITS]
    return Found(words, _hits(run, words, shown), shown[-1] if len(seqs) > MAX_HITS else None)


def _hits(run: Run, words: str, seqs: list[int]) -> tuple[Hit, ...]:
    places = {f"{column}_at": StrIndex(Lower(column), Lower(Value(words))) for column in PLACES}
    pieces = {
        f"{column}_piece": Substr(column, Greatest(F(f"{column}_at") - BEFORE, Value(1)), AROUND)
        for column in PLACES
    }
    steps = run.steps.filter(seq__in=seqs).annotate(**places).annotate(**pieces).order_by("seq")
    found = steps.values("seq", "name", *places, *pieces)
    return tuple(_hit(step, words) for step in found)


def _hit(step: dict[str, object], words: str) -> Hit:
    column = next((name for name in PLACES if step[f"{name}_at"]), "summary")
    at = int(str(step[f"{column}_at"] or 0))
    piece = str(step[f"{column}_piece"])
    begin = min(BEFORE, max(0, at - 1))
    return Hit(
        seq=int(str(step["seq"])),
        name=str(step["name"]),
        place=PLACES[column],
        before=("…" if at > BEFORE + 1 else "") + piece[:begin],
        match=piece[begin : begin + len(words)] if at else "",
        after=piece[begin + len(words) :] if at else piece,
    )
