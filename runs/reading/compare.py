"""Two runs side by side: their totals, and their steps aligned by what they did."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from difflib import SequenceMatcher
from functools import cached_property

from django.db.models.functions import Left, Length

from runs.models import Run, StepKind
from runs.reading.payloads import WHOLE

MOST_STEPS = 600  # of each run that are aligned
COMPARED = 20_000  # characters of a text that are compared; of longer ones the length, too
# What an answer of a tool says; the rest of its envelope differs each time.
SAYING = ("status", "summary", "data", "error")
PARTS = ("arguments", "result", "text", "reasoning")
DIFF_LINES = 400
CONTEXT = 3


@dataclass(frozen=True)
class Side:
    """One step of one of the runs."""

    seq: int
    kind: str
    name: str
    status: str
    summary: str
    cost: Decimal | None
    seconds: float | None  # it worked, without waiting for people
    arguments: str
    said: str

    @property
    def exact(self) -> Hashable:
        """Equal for steps that did the same."""
        return self.kind, self.name, self.arguments if self.kind == StepKind.TOOL else self.said

    @property
    def loose(self) -> Hashable:
        """Equal for steps of the same kind, with whatever arguments."""
        return self.kind, self.name if self.kind == StepKind.TOOL else ""


@dataclass(frozen=True)
class Pair:
    """Two steps that stand for each other, or one without a counterpart."""

    left: Side | None
    right: Side | None

    @cached_property
    def differences(self) -> tuple[str, ...]:
        """In words, what is not the same; nothing for a step without a counterpart."""
        if self.left is None or self.right is None:
            return ()
        found = []
        if self.left.status != self.right.status:
            found.append("status")
        if self.left.arguments != self.right.arguments:
            found.append("arguments")
        if self.left.said != self.right.said:
            found.append("result" if self.left.kind == StepKind.TOOL else "text")
        return tuple(found)

    @property
    def state(self) -> str:
        """same, differs, left (alone) or right."""
        if self.left is None:
            return "right"
        if self.right is None:
            return "left"
        return "differs" if self.differences else "same"

    @property
    def cost_change(self) -> Decimal | None:
        """What the right one cost more, where both have a price."""
        if self.left is None or self.right is None or self.left.cost is None or self.right.cost is None:
            return None
        return self.right.cost - self.left.cost

    @property
    def time_change(self) -> float | None:
        """Seconds that the right one took longer, where both have ended."""
        if self.left is None or self.right is None or self.left.seconds is None or self.right.seconds is None:
            return None
        return self.right.seconds - self.left.seconds


@dataclass(frozen=True)
class Line:
    """One line of a difference: `was` only on the left, `now` only on the right, or on both."""

    state: str  # was, now, same, hunk
    text: str


@dataclass(frozen=True)
class Comparison:
    """Two runs, and their steps in one order."""

    left: Run
    right: Run
    pairs: tuple[Pair, ...]
    is_cut: bool
    answer: tuple[Line, ...]  # empty when both say the same

    def count(self, state: str) -> int:
        return sum(pair.state == state for pair in self.pairs)

    @property
    def same(self) -> int:
        return self.count("same")

    @property
    def differing(self) -> int:
        return self.count("differs")

    @property
    def alone(self) -> int:
        return self.count("left") + self.count("right")

    @property
    def time_change(self) -> float | None:
        """Seconds that the right run took longer, once both have ended."""
        if self.left.ended_at is None or self.right.ended_at is None:
            return None
        return (self.right.elapsed() - self.left.elapsed()).total_seconds()

    @property
    def waiting_change(self) -> float:
        return self.right.waited_seconds - self.left.waited_seconds

    @property
    def first_difference(self) -> Pair | None:
        """Where the two runs part."""
        return next((pair for pair in self.pairs if pair.state != "same"), None)


def read_comparison(left: Run, right: Run) -> Comparison:
    """The first MOST_STEPS steps of both, aligned: two queries."""
    sides = [_sides(run) for run in (left, right)]
    return Comparison(
        left=left,
        right=right,
        pairs=tuple(align(*sides)),
        is_cut=max(left.step_count, right.step_count) > MOST_STEPS,
        answer=_of_answers(left.final_response, right.final_response),
    )


def align(left: Sequence[Side], right: Sequence[Side]) -> list[Pair]:
    """Every step of both once, in order; steps that did the same stand beside each other.

    Between them, steps of the same kind do. Pure.
    """
    pairs: list[Pair] = []
    for same, ours, theirs in _blocks(left, right, lambda side: side.exact):
        if same:
            pairs.extend(Pair(one, other) for one, other in zip(ours, theirs, strict=True))
            continue
        for alike, one_part, other_part in _blocks(ours, theirs, lambda side: side.loose):
            if alike:
                pairs.extend(Pair(one, other) for one, other in zip(one_part, other_part, strict=True))
            else:
                pairs.extend(Pair(one, None) for one in one_part)
                pairs.extend(Pair(None, other) for other in other_part)
    return pairs


def difference(left: str, right: str) -> tuple[Line, ...]:
    """The lines in which two texts differ, with some around them, at most DIFF_LINES; none for equal ones."""
    if left == right:
        return ()
    ours, theirs = left.splitlines()[:DIFF_LINES], right.splitlines()[:DIFF_LINES]
    lines: list[Line] = []
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    for number, group in enumerate(matcher.get_grouped_opcodes(CONTEXT)):
        if number:
            lines.append(Line("hunk", "⋯"))
        for operation, a, b, c, d in group:
            if operation == "equal":
                lines.extend(Line("same", text) for text in ours[a:b])
                continue
            lines.extend(Line("was", text) for text in ours[a:b])
            lines.extend(Line("now", text) for text in theirs[c:d])
    return tuple(lines[:DIFF_LINES])


def _of_answers(left: str, right: str) -> tuple[Line, ...]:
    """The difference of two answers, each by its first COMPARED characters."""
    lines = difference(left[:COMPARED], right[:COMPARED])
    if not lines and left != right:
        return (Line("hunk", f"The first {COMPARED:,} characters are the same. The rest differs."),)
    return lines


def compare_steps(left: Run, left_seq: int, right: Run, right_seq: int) -> dict[str, tuple[Line, ...]]:
    """The differences of two steps by the name of what differs, in lines of indented JSON or text."""
    begins = [Left(part, WHOLE) for part in PARTS]
    ours, theirs = (
        run.steps.filter(seq=seq).values_list(*begins).first()
        for run, seq in ((left, left_seq), (right, right_seq))
    )
    if ours is None or theirs is None:
        return {}
    found = {
        part: difference(_lines(one), _lines(other))
        for part, one, other in zip(PARTS, ours, theirs, strict=True)
    }
    return {part: lines for part, lines in found.items() if lines}


def _lines(text: str) -> str:
    """JSON one value a line, so that a difference is small; other text as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _sides(run: Run) -> list[Side]:
    steps = run.steps.filter(seq__lte=MOST_STEPS).order_by("seq")
    rows = steps.annotate(
        asked=Left("arguments", COMPARED),
        answered=Left("result", COMPARED),
        answered_characters=Length("result"),
        wrote=Left("text", COMPARED),
    ).values_list(
        "seq", "kind", "name", "status", "summary", "cost_usd", "started_at", "ended_at", "waited_seconds",
        "asked", "answered", "answered_characters", "wrote",
    )  # fmt: skip
    return [_side(*row) for row in rows]


def _side(
    seq: int,
    kind: str,
    name: str,
    status: str,
    summary: str,
    cost: Decimal | None,
    started: datetime,
    ended: datetime | None,
    waited: float,
    asked: str,
    answered: str,
    characters: int,
    wrote: str,
) -> Side:
    seconds = max(0.0, (ended - started).total_seconds() - waited) if ended else None
    said = _said(answered, characters) if kind == StepKind.TOOL else wrote
    return Side(seq, kind, name, status, summary, cost, seconds, _canonical(asked), said)


def _canonical(text: str) -> str:
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return text


def _said(text: str, characters: int) -> str:
    """What a tool answered without what differs each time: ids of evidence, times, sources."""
    if characters > len(text):
        return f"{characters} {text}"
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(envelope, dict) or "status" not in envelope:
        return text
    return json.dumps([envelope.get(name) for name in SAYING], sort_keys=True)


def _blocks(
    left: Sequence[Side], right: Sequence[Side], key: Callable[[Side], Hashable]
) -> list[tuple[bool, Sequence[Side], Sequence[Side]]]:
    """Stretches of both in order: with the same keys, or without a counterpart."""
    matcher = SequenceMatcher(None, [key(one) for one in left], [key(one) for one in right], autojunk=False)
    return [(operation == "equal", left[a:b], right[c:d]) for operation, a, b, c, d in matcher.get_opcodes()]
