"""Where a search was found: steps of a run, each with its words in their context."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile

from django.db.models import Q
from django.db.models.functions import Left, Right

from runs import fulltext, tokens
from runs.fulltext import Phrase
from runs.models import Run, Step, StepKind
from runs.reading.conditions import phrases_of
from runs.reading.runs import RunQuery

EACH = 2  # steps that are shown of a run
SHOWN = 12_000  # characters of a text that are looked at
SHOWN_END = 1_200  # and so many of its end, where the index has that, too
BEFORE, AFTER = 60, 110  # characters around the first word that was found
TEXTS = {
    "text": "said",
    "reasoning": "thought",
    "error": "error",
    "arguments": "arguments",
    "result": "result",
}
JSON = ("arguments", "result")


@dataclass(frozen=True)
class Piece:
    """A part of an excerpt; `marked` is what was looked for."""

    text: str
    marked: bool


@dataclass(frozen=True)
class Hit:
    """One step of a run that was found, or its question or answer: then `step` is 0."""

    step: int
    name: str  # tool or model; question or answer
    where: str
    pieces: tuple[Piece, ...]


def read_hits(query: RunQuery, pks: Sequence[int]) -> dict[int, list[Hit]]:
    """What was found in these runs; nothing for a search without words: three queries."""
    match = query.conditions.match
    if not match or query.error is not None or not pks:
        return {}
    found = fulltext.hits(match, pks, 2 * EACH)  # a step may have two entries
    places = {
        run: list(dict.fromkeys(fulltext.step_of(entry) for entry in entries))[:EACH]
        for run, entries in found.items()
    }
    words = pattern(phrases_of(query.query))
    hits = _in_questions([run for run, steps in places.items() if 0 in steps], words)
    for step in _steps(places):
        hits.setdefault(step.run_id, []).append(_hit(step, words))
    return hits


def pattern(phrases: Collection[Phrase]) -> re.Pattern[str] | None:
    """Finds the words of a search in folded and parted text; None when there are none."""
    parts = [tokens.expression(phrase.tokens, begins=phrase.begins) for phrase in phrases]
    return re.compile("|".join(parts)) if parts else None


def excerpt(text: str, words: re.Pattern[str] | None) -> tuple[Piece, ...] | None:
    """The surroundings of the first words that are found; None when none is."""
    if words is None:
        return None
    text = text.replace(tokens.HUMP, " ")
    parted = tokens.parted(text)
    found = words.finditer(tokens.fold(parted))
    first = next(found, None)
    if first is None:
        return None
    near = takewhile(lambda match: match.start() < first.end() + 2 * AFTER, found)
    spans = [first.span(), *(match.span() for match in near)]
    marks = [_unparted(parted, span) for span in tokens.sources(parted, spans)]
    start, end = max(0, marks[0][0] - BEFORE), marks[0][1] + AFTER
    pieces, at = [Piece("…", False)] if start else [], start
    for begins, ends in marks:
        begins = max(begins, at)
        if begins >= end:
            break
        if begins > at:
            pieces.append(Piece(text[at:begins], False))
        pieces.append(Piece(text[begins:ends], True))
        at = ends
    rest = text[at:end] + ("…" if max(at, end) < len(text) else "")
    return tuple([*pieces, Piece(rest, False)] if rest else pieces)


def _unparted(parted: str, span: tuple[int, int]) -> tuple[int, int]:
    """The same stretch of the text as it was before its words in camel case were parted."""
    begins, ends = (place - parted.count(tokens.HUMP, 0, place) for place in span)
    return begins, ends


def _in_questions(runs: Sequence[int], words: re.Pattern[str] | None) -> dict[int, list[Hit]]:
    hits: dict[int, list[Hit]] = {}
    rows = Run.objects.filter(pk__in=runs).values_list(
        "pk", Left("user_query", SHOWN), Left("final_response", SHOWN), "explanation"
    )
    for pk, *texts in rows:
        for name, text in zip(("question", "answer", "answer"), texts, strict=True):
            pieces = excerpt(text, words)
            if pieces is not None and pk not in hits:
                hits[pk] = [Hit(0, name, "", pieces)]
    return hits


def _steps(places: dict[int, list[int]]) -> list[Step]:
    wanted = {(run, step) for run, steps in places.items() for step in steps if step}
    if not wanted:
        return []
    runs, seqs = {run for run, _ in wanted}, {seq for _, seq in wanted}
    bounded = {f"{name}_begins": Left(name, SHOWN) for name in TEXTS}
    bounded |= {f"{name}_ends": Right(name, SHOWN_END) for name in JSON}
    rows = Step.objects.filter(Q(run__in=runs) & Q(seq__in=seqs)).only("run_id", "seq", "kind", "name")
    keys = rows.order_by("run_id", "seq").values_list("pk", "run_id", "seq")
    pks = [pk for pk, run, seq in keys if (run, seq) in wanted]
    return list(rows.filter(pk__in=pks).order_by("run_id", "seq").annotate(**bounded))


def _hit(step: Step, words: re.Pattern[str] | None) -> Hit:
    """The first of the step's texts that holds the words; the beginning of one when they stand further on."""
    texts = [(name, getattr(step, f"{name}_begins")) for name in TEXTS]
    texts += [
        (name, getattr(step, f"{name}_ends"))
        for name, begins in texts
        if len(begins) == SHOWN and name in JSON
    ]
    begun = dict(reversed(texts))
    texts = [(name, tokens.spoken(text, begun[name]) if name in JSON else text) for name, text in texts]
    name = step.name if step.kind == StepKind.TOOL else "model"
    for kind, text in texts:
        pieces = excerpt(text, words)
        if pieces is not None:
            return Hit(step.seq, name, TEXTS[kind], pieces)
    begins = next((text for kind, text in texts if text and kind in {"text", *JSON}), "")
    return Hit(step.seq, name, "", (Piece(begins[: BEFORE + AFTER], False),))
