"""Where a search was found: steps of a run, each with its words in their context."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.db.models import Q
from django.db.models.functions import Left

from runs import fulltext, tokens
from runs.fulltext import Phrase
from runs.models import Run, Step, StepKind
from runs.reading.conditions import phrases_of
from runs.reading.runs import RunQuery

EACH = 2  # steps that are shown of a run
SHOWN = 12_000  # characters of a text that are looked at
BEFORE, AFTER = 60, 110  # characters around the first word that was found
TEXTS = {
    "text": "said",
    "reasoning": "thought",
    "error": "error",
    "arguments": "arguments",
    "result": "result",
}


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
    """Finds the words of a search where they stand in a text; None when there are none."""
    parts = [_part(phrase) for phrase in phrases]
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def excerpt(text: str, words: re.Pattern[str] | None) -> tuple[Piece, ...] | None:
    """The surroundings of the first words that are found; None when none is."""
    first = words.search(text) if words is not None else None
    if words is None or first is None:
        return None
    start = max(0, first.start() - BEFORE)
    shown = text[start : first.end() + AFTER]
    pieces = [Piece("…", False)] if start else []
    at = 0
    for found in words.finditer(shown):
        if found.start() > at:
            pieces.append(Piece(shown[at : found.start()], False))
        pieces.append(Piece(found.group(), True))
        at = found.end()
    rest = shown[at:] + ("…" if first.end() + AFTER < len(text) else "")
    return tuple([*pieces, Piece(rest, False)] if rest else pieces)


def _part(phrase: Phrase) -> str:
    """Tokens with whatever separates them; words begin and end where words do."""
    between = r"[\W_]*"
    inner = between.join(re.escape(token) for token in phrase.tokens)
    begin = r"(?<![^\W_])" if phrase.tokens[0].isascii() else ""
    end = r"[^\W_]*" if phrase.begins else r"(?![^\W_])" if phrase.tokens[-1].isascii() else ""
    return f"(?:{begin}{inner}{end}|(?<=[a-z0-9])(?-i:{_humped(phrase)}))" if begin else f"(?:{inner}{end})"


def _humped(phrase: Phrase) -> str:
    """The same words inside of one in camel case."""
    return "".join(re.escape(token[:1].upper() + token[1:]) for token in phrase.tokens)


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
    rows = Step.objects.filter(Q(run__in=runs) & Q(seq__in=seqs)).only("run_id", "seq", "kind", "name")
    keys = rows.order_by("run_id", "seq").values_list("pk", "run_id", "seq")
    pks = [pk for pk, run, seq in keys if (run, seq) in wanted]
    return list(rows.filter(pk__in=pks).order_by("run_id", "seq").annotate(**bounded))


def _hit(step: Step, words: re.Pattern[str] | None) -> Hit:
    """The first of the step's texts that holds the words; the beginning of one when they stand further on."""
    texts = {name: getattr(step, f"{name}_begins") for name in TEXTS}
    for name in ("arguments", "result"):
        texts[name] = tokens.spoken(texts[name])
    name = step.name if step.kind == StepKind.TOOL else "model"
    for kind, text in texts.items():
        pieces = excerpt(text, words)
        if pieces is not None:
            return Hit(step.seq, name, TEXTS[kind], pieces)
    begins = next((text for text in (texts["text"], texts["arguments"], texts["result"]) if text), "")
    return Hit(step.seq, name, "", (Piece(begins[: BEFORE + AFTER], False),))
