"""Calls that were answered already: what a run knows, and which calls would only say it again.

Pure, from rows. Two answers hold the same information when their envelopes say the same status, data and
error. Times, samples, cursors and evidence ids do not count, and a number has changed when it differs by a
twentieth. An answer without data is compared by its summary. When in doubt two answers differ: a look too
many costs less than one that was refused.

What was known is forgotten when a change was made (a call with an effect that ran, also one of unknown
outcome) and when a person said something: looking again is then the right thing to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from runs.actions import Refusal, canonical
from runs.engine.moves import CONTINUE, WRAP_UP
from runs.models import Step, StepKind, StepStatus

REPEATED = "repeated"
FRESH = timedelta(seconds=30)  # after this a look at a live system is a new look
SAME_ANSWERS = 2  # a read is made so often with the same answer, then it is refused
TOLERANCE = 0.05
# The same arguments get the same refusal, whatever happens in production.
FINAL = frozenset({"invalid_argument", "unknown_tool", "denied", "changed", "limit"})
BY_PEOPLE = frozenset({"rejected", "expired", "revoked"})
RAN = frozenset({StepStatus.SUCCEEDED, StepStatus.UNKNOWN})
INCIDENTAL = re.compile(r"(^|_)(sample|cursor)(_|$)|^evidence_id$")
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")
ERROR_SHOWN = 300

Key = tuple[str, str]


@dataclass
class _Known:
    """What exactly one call has answered since the last change; `times`: so often in a row, the same."""

    first: Step
    last: Step
    times: int = 1


@dataclass
class _Memory:
    """What the run knows, read from its settled calls in their order."""

    answers: dict[Key, _Known] = field(default_factory=dict)
    errors: set[tuple[str, str]] = field(default_factory=set)
    rejected: dict[Key, Step] = field(default_factory=dict)
    changes: dict[Key, Step] = field(default_factory=dict)
    newest: Key | None = None  # the change after which nothing was learned yet
    fruitless: int = 0
    _learned: bool = False  # in the turn that is being read
    _repeated: bool = False

    def restart(self) -> None:
        """A person said something: everything may be asked again."""
        self.changes.clear()
        self.rejected.clear()
        self.newest = None
        self._forget()

    def end_turn(self) -> None:
        """Count the turn when it brought nothing new and repeated something."""
        if self._learned:
            self.fruitless = 0
        elif self._repeated:
            self.fruitless += 1
        self._learned = self._repeated = False

    def add(self, step: Step) -> None:
        """What this settled call tells."""
        key = key_of(step)
        if step.status == StepStatus.REFUSED and step.error_kind == REPEATED:
            self._repeated = True
        elif step.status == StepStatus.REFUSED and step.error_kind in BY_PEOPLE:
            self._forget()
            if step.error_kind in {"rejected", "revoked"}:
                self.rejected[key] = step
        elif step.effect != "read" and step.status in RAN:
            self._changed(key, step)
        else:
            self._answered(key, step)

    def _changed(self, key: Key, step: Step) -> None:
        before = self.changes.get(key)
        if before is not None and _done_already(before, step):
            self._repeated = True
            return
        self.rejected.clear()
        self._forget()
        self.changes[key] = step
        self.newest = key

    def _answered(self, key: Key, step: Step) -> None:
        known = self.answers.get(key)
        if known is not None and same_information(known.first.result, step.result):
            known.last = step
            known.times += 1
            # The second look is how one sees that nothing moved.
            self._repeated |= known.times > SAME_ANSWERS or step.error_kind in FINAL
            return
        self.answers[key] = _Known(step, step)
        heard = (step.name, step.error)
        if step.is_error and heard in self.errors:
            self._repeated = True  # other arguments, the same mistake
            return
        if step.is_error:
            self.errors.add(heard)
        self._learned = True
        self.newest = None

    def _forget(self) -> None:
        self.answers.clear()
        self.errors.clear()
        self.fruitless = 0
        self._learned = True


def fruitless_turns(steps: Sequence[Step]) -> int:
    """How many turns since the last progress only repeated what was answered already.

    It is 0 while the calls of the last turn have no results: then nobody asks.
    """
    return 0 if _says_something_new(steps) else _read(steps).fruitless


def refusal(steps: Sequence[Step], step: Step, now: datetime) -> Refusal | None:
    """Why this proposed call need not run, for the model; None when it may tell something new."""
    key = key_of(step)
    if not any(other.name == step.name and key_of(other) == key for other in _calls_before(steps, step)):
        return None
    for other in _siblings_before(steps, step):
        if key_of(other) == key:
            return _because(f"Step {other.seq} of this turn makes exactly this call. Read its result.")
    memory = _read(steps, before=step.parent_id)
    if (refused := memory.rejected.get(key)) is not None:
        return _because(
            f"Exactly this was proposed in step {refused.seq} and nothing was changed since, so nobody was "
            f"asked again. What was said then: {refused.error[:ERROR_SHOWN]}"
        )
    if memory.newest == key and key in memory.changes:
        return _because(
            f"Step {memory.changes[key].seq} did exactly this and nothing was looked at since. "
            "Use its result, and look whether it helped before you do it again."
        )
    known = memory.answers.get(key)
    return None if known is None else _answered_by(known, now)


def _answered_by(known: _Known, now: datetime) -> Refusal | None:
    last = known.last
    if last.error_kind in FINAL:
        return _because(
            f"Step {last.seq} made exactly this call and it cannot work: {last.error[:ERROR_SHOWN]} "
            "Change the arguments, or do something else."
        )
    if known.times < SAME_ANSWERS or (last.ended_at is not None and now - last.ended_at >= FRESH):
        return None
    named = f" ({known.first.evidence_id}, {last.evidence_id})" if last.evidence_id else ""
    return _because(
        f"Steps {known.first.seq} and {last.seq}{named} made exactly this call and got the same answer, and "
        "nothing was changed since. Use that answer, or do something else."
    )


def _because(sentence: str) -> Refusal:
    return Refusal(REPEATED, f"It did not run. {sentence}")


def _read(steps: Sequence[Step], *, before: int | None = None) -> _Memory:
    """The memory after these steps, or before the turn with this key."""
    memory = _Memory()
    for step in steps:
        if step.kind == StepKind.MODEL:
            if before is not None and step.pk == before:
                break
            memory.end_turn()
        elif step.kind == StepKind.TOOL and step.is_settled:
            memory.add(step)
        elif step.kind == StepKind.NOTE and not step.name.startswith((WRAP_UP, CONTINUE)):
            memory.restart()
    memory.end_turn()
    return memory


def _done_already(before: Step, step: Step) -> bool:
    """Whether the tool said the same as when it did this first: it has not done it again."""
    succeeded = before.status == step.status == StepStatus.SUCCEEDED
    return succeeded and same_information(before.result, step.result)


def _says_something_new(steps: Sequence[Step]) -> bool:
    """What is seen at a glance: a call of the last turn was answered that nobody made before, or is open."""
    calls = [step for step in steps if step.kind == StepKind.TOOL]
    if not calls or not calls[-1].is_settled:
        return True
    made = {(step.name, step.arguments) for step in calls if step.parent_id != calls[-1].parent_id}
    last = (step for step in calls if step.parent_id == calls[-1].parent_id)
    return any(
        step.status == StepStatus.SUCCEEDED and (step.name, step.arguments) not in made for step in last
    )


def _calls_before(steps: Sequence[Step], step: Step) -> Iterator[Step]:
    return (other for other in steps if other.kind == StepKind.TOOL and other.seq < step.seq)


def _siblings_before(steps: Sequence[Step], step: Step) -> Iterator[Step]:
    """The calls of the same turn that come first."""
    return (other for other in steps if other.parent_id == step.parent_id and other.seq < step.seq)


def key_of(step: Step) -> Key:
    """What makes two calls the same: the tool and its canonical arguments."""
    return step.name, _canonical(step.arguments)


@lru_cache(maxsize=4_096)
def _canonical(arguments: str) -> str:
    try:
        return canonical(json.loads(arguments))
    except (ValueError, RecursionError):  # what has no canonical form is the same when its text is
        return arguments


def same_information(one: str, other: str) -> bool:
    """Whether two results tell the same, as defined above."""
    return one == other or _alike(_told(one), _told(other))


def _told(result: str) -> Any:
    """The part of a result that is information."""
    try:
        envelope = json.loads(result)
    except ValueError:
        return result
    if not isinstance(envelope, dict) or "status" not in envelope:
        return envelope
    told = {name: envelope.get(name) for name in ("status", "data", "error")}
    return told if told["data"] else told | {"summary": envelope.get("summary")}


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        names = {name for name in one.keys() | other.keys() if not INCIDENTAL.search(str(name))}
        return all(name in one and name in other and _alike(one[name], other[name]) for name in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, str) and isinstance(other, str):
        return one == other or TIME.sub("", one) == TIME.sub("", other)
    if _is_number(one) and _is_number(other):
        return bool(abs(one - other) < TOLERANCE * max(abs(one), abs(other)) or one == other)
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
