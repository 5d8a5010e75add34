"""Text found inside one run, in everything its steps say.

What is compared is what people read: strings of JSON are decoded, and letters folded as in the search of the
list. No database does that alike, so the texts are read and compared here, a bounded part at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models.functions import Left

from runs import tokens
from runs.models import Run
from runs.reading.language import normalised

# The columns, in the order in which a hit is looked for in a step. Those of JSON are decoded.
PLACES = ("name", "error", "text", "arguments", "result", "reasoning", "summary")
JSON = frozenset({"arguments", "result"})
MAX_HITS = 50
MAX_WORDS = 200  # characters that are looked for
AT_ONCE = 100  # steps that are read at once
BEGINNING = 20_000  # characters of a text that are read at first
MOST_OF_ONE = 2_000_000  # and of a text that is longer
MOST_AT_ONCE = 40_000_000  # characters after which the reader is asked to go on: about a second
FOLDED = 10  # times as long takes a text that is not only ASCII
BEFORE = 40
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
    """Steps after `after` whose texts hold these words; case, accents and kinds of white space aside.

    Of each text the first MOST_OF_ONE characters are searched. Looking stops after MAX_HITS steps, or after
    MOST_AT_ONCE characters.
    """
    words = normalised(words)[:MAX_WORDS]
    pattern = _pattern(words)
    if pattern is None:
        return Found(words, (), None)
    hits: list[Hit] = []
    looked_at, read = after, 0
    for step in _steps(run, after):
        if read > MOST_AT_ONCE:
            return Found(words, tuple(hits), looked_at)
        texts = _texts(run, step)
        read += sum(len(text) * (1 if text.isascii() else FOLDED) for text in texts.values())
        hit = _hit(step, texts, pattern)
        if hit is not None:
            if len(hits) == MAX_HITS:
                return Found(words, tuple(hits), looked_at)
            hits.append(hit)
        looked_at = step["seq"]
    return Found(words, tuple(hits), None)


def _pattern(words: str) -> re.Pattern[str] | None:
    """Finds the words in folded text. A key is shown without the quotation marks that JSON puts around it."""
    parts = [re.escape(part) for part in tokens.fold(words).split()]
    parts = [part[:-1] + r'"?:' if part.endswith(":") else part for part in parts]
    if not parts:
        return None
    return re.compile("".join(p + (r"\s*" if p.endswith('"?:') else r"\s+") for p in parts[:-1]) + parts[-1])


def _steps(run: Run, after: int) -> Iterator[dict[str, Any]]:
    """The steps behind this one with the beginnings of their texts, AT_ONCE of them in one query."""
    bounded = {f"{name}_begins": Left(name, BEGINNING) for name in PLACES}
    while True:
        steps = run.steps.filter(seq__gt=after).order_by("seq").annotate(**bounded)
        rows = list(steps.values("seq", *bounded)[:AT_ONCE])
        yield from rows
        if len(rows) < AT_ONCE:
            return
        after = rows[-1]["seq"]


def _texts(run: Run, step: dict[str, Any]) -> dict[str, str]:
    """What the step says, as people read it; more of what is long."""
    texts = {name: step[f"{name}_begins"] for name in PLACES}
    long = [name for name, text in texts.items() if len(text) == BEGINNING]
    if long:
        more = {f"{name}_more": Left(name, MOST_OF_ONE) for name in long}
        row = run.steps.filter(seq=step["seq"]).annotate(**more).values(*more).get()
        texts |= {name: row[f"{name}_more"] for name in long}
    return {name: tokens.spoken(text) if name in JSON else text for name, text in texts.items()}


def _hit(step: dict[str, Any], texts: dict[str, str], pattern: re.Pattern[str]) -> Hit | None:
    for name, text in texts.items():
        found = pattern.search(tokens.fold(text))
        if found is not None:
            ((begins, ends),) = tokens.sources(text, [found.span()])
            start = max(0, begins - BEFORE)
            return Hit(
                seq=step["seq"],
                name=step["name_begins"],
                place=name,
                before=("…" if start else "") + text[start:begins],
                match=text[begins:ends],
                after=text[ends : max(ends, start + AROUND)],
            )
    return None
