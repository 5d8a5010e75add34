"""The full-text index follows the events: what they say has changed is looked at and added a moment later.

Runs write nothing for it. Events are the queue: how far they were followed is one row, written in the
transaction that adds the entries, so nothing is lost or added twice when a worker dies. On SQLite ids of
events commit in order. On PostgreSQL they do not, so events stay under observation until no transaction is
open that began before they were seen. A step becomes an entry when it is settled, a call also while it waits
for a person; question, and answer of a run that ended, are step 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import batched

from django.db import connection, transaction
from django.db.models import Max
from django.db.models.functions import Left, Right
from django.utils.functional import cached_property

from runs import fulltext, tokens
from runs.actions.change import one_writer
from runs.models import ENDED, Event, Run, SearchState, Step, StepKind, StepStatus

EVENTS_AT_ONCE = 400
ENTRIES_AT_ONCE = 60  # per transaction: on SQLite everybody else waits for it
RUNS_AT_ONCE = 300
SEARCHED = 4_000  # characters of an argument or result, and of what a model thinks and says
SEARCHED_END = 1_000  # and so many of its end, where it is longer
RETRIED = "run.retried"

Entry = tuple[int, list[str]]


@dataclass(frozen=True)
class Progress:
    """What one pass did."""

    events: int
    entries: int

    @property
    def is_behind(self) -> bool:
        """Whether there is probably more to do at once."""
        return self.events >= EVENTS_AT_ONCE


class Indexer:
    """Follows the events. For one thread; any number of them, in any number of processes, may follow."""

    def __init__(self) -> None:
        self._watched: set[int] = set()  # events that were looked at and are not done yet

    def follow(self) -> Progress:
        """Add what changed since the last pass; a bounded part of it when it is much."""
        state = _state()
        events = list(
            Event.objects.filter(pk__gt=state.done)
            .order_by("pk")
            .values_list("pk", "run_id", "kind", "data", named=True)[: EVENTS_AT_ONCE + len(self._watched)]
        )
        horizon = _Horizon()
        fresh = [event for event in events if event.pk not in self._watched]
        if not fresh and (not events or not horizon.has_passed(state)):
            return Progress(0, 0)
        entries = _entries_of({(event.run_id, _step_of(event.data)) for event in fresh})
        added = sum(add(some) for some in batched(entries, ENTRIES_AT_ONCE, strict=False))
        with one_writer(), transaction.atomic():
            state = SearchState.objects.select_for_update().get(pk=state.pk)
            if events:
                horizon.move(state, events[-1].pk)
        self._watched = {event.pk for event in events if event.pk > state.done}
        return Progress(len(fresh), added)


def add(entries: Collection[Entry]) -> int:
    """Add those of these entries that are new, in one short transaction; how many they were."""
    with one_writer(), transaction.atomic():
        known = fulltext.stored([pk for pk, _ in entries])
        new = [entry for entry in entries if entry[0] not in known]
        fulltext.store(new)
    return len(new)


def rebuild_index() -> Iterator[tuple[int, int]]:
    """Forget the index and build it from the rows; after each portion of runs: how many of how many.

    Workers may go on meanwhile: what they add is kept, what they change later is followed as always.
    """
    with one_writer(), transaction.atomic():
        SearchState.objects.all().delete()
        fulltext.clear()
        fulltext.begin_rebuild()
        # What is committed by now is read below; what is not yet, or comes later, is followed.
        state = SearchState.objects.create()
        _Horizon().move(state, Event.objects.aggregate(last=Max("pk"))["last"] or 0)
    try:
        pks = list(Run.objects.order_by("pk").values_list("pk", flat=True))
        done = 0
        for some in batched(pks, RUNS_AT_ONCE, strict=False):
            for entries in batched(_entries_of_runs(some), 10 * ENTRIES_AT_ONCE, strict=False):
                add(entries)
            done += len(some)
            yield done, len(pks)
    finally:
        fulltext.end_rebuild()


def _state() -> SearchState:
    """How far the index is. Where nothing is known of it, it begins empty."""
    state = SearchState.objects.order_by("pk").first()
    if state is not None:
        return state
    with one_writer(), transaction.atomic():
        fulltext.clear()
        return SearchState.objects.get_or_create(pk=1)[0]


class _Horizon:
    """Which events can no longer be overtaken by one with a smaller id that commits later."""

    @cached_property
    def _snapshot(self) -> tuple[int, int]:
        """The oldest transaction that is open, and the one that comes next."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint "
                "FROM pg_current_snapshot() AS s"
            )
            oldest, following = cursor.fetchone()
            return oldest, following

    def has_passed(self, state: SearchState) -> bool:
        """Whether moving would settle something."""
        if state.seen == state.done:
            return False
        return connection.vendor != "postgresql" or self._snapshot[0] >= state.horizon

    def move(self, state: SearchState, seen: int) -> None:
        """Events up to this one have been looked at."""
        if connection.vendor != "postgresql":
            state.done = state.seen = max(seen, state.done)
        else:
            if self.has_passed(state):
                state.done = state.seen
            if state.seen <= state.done:  # a new one is observed only when the last one is settled
                state.seen, state.horizon = max(seen, state.done), self._snapshot[1]
        state.save()


def _step_of(data: str) -> int:
    """The step that an event is about; 0 when it is about its run."""
    _, found, rest = data.partition('"step":')
    digits = rest.partition(",")[0].partition("}")[0]
    return int(digits) if found and digits.isdecimal() else 0


def _entries_of(changed: set[tuple[int, int]]) -> list[Entry]:
    """What the index has to hold of these steps, each given with its run."""
    begun_or_ended = {run for run, seq in changed if not seq}
    copies = Run.objects.filter(pk__in=begun_or_ended, copied_steps__gt=0).values_list("pk", "copied_steps")
    changed |= {(run, seq) for run, last in copies for seq in range(1, last + 1)}
    runs, steps = {run for run, seq in changed if seq}, {seq for _, seq in changed if seq}
    found = [
        entry
        for some in batched(sorted(steps), 500, strict=False)
        for step in _steps(runs, some)
        if (step.run_id, step.seq) in changed
        for entry in _entry_of_step(step)
    ]
    return sorted([*_heads(begun_or_ended), *found])


def _entries_of_runs(runs: Collection[int]) -> Iterator[Entry]:
    yield from _heads(runs)
    for step in _steps(runs, None):
        yield from _entry_of_step(step)


def _steps(runs: Collection[int], seqs: Collection[int] | None) -> Iterator[Step]:
    """Steps with the beginnings and ends of their texts, never a whole result of many megabytes."""
    chosen = Step.objects.filter(run__in=runs).order_by("run_id", "seq")
    if seqs is not None:
        chosen = chosen.filter(seq__in=seqs)
    parts = ("reasoning", "text", "arguments", "result", "error")
    bounded = {f"{name}_begins": Left(name, SEARCHED) for name in parts}
    ends = {f"{name}_ends": Right(name, SEARCHED_END) for name in ("arguments", "result")}
    facts = chosen.only("run_id", "seq", "kind", "status", "name", "effect", "error_kind")
    yield from facts.annotate(**bounded, **ends).iterator(chunk_size=500)


def _entry_of_step(step: Step) -> Iterator[Entry]:
    if step.is_settled:
        version = 1
    elif step.kind == StepKind.TOOL and step.status == StepStatus.WAITING:
        version = 0
    else:
        return
    texts = [getattr(step, f"{name}_begins") for name in ("reasoning", "text", "error")]
    for parts in (_bounded(step, "arguments"), _bounded(step, "result")):
        texts += [tokens.spoken(part, parts[0]) for part in parts]
    yield fulltext.entry_id(step.run_id, step.seq, version), tokens.document(texts, _facts(step))


def _bounded(step: Step, name: str) -> tuple[str, ...]:
    """The beginning of a text, and its end where that is not part of the beginning."""
    begins, ends = getattr(step, f"{name}_begins"), getattr(step, f"{name}_ends")
    return (begins,) if len(begins) < SEARCHED else (begins, ends)


def _facts(step: Step) -> list[str]:
    facts = []
    if step.kind == StepKind.TOOL:
        facts.append(tokens.fact("tool", step.name))
        facts.append(tokens.fact("effect", step.effect))
    if step.error_kind or step.status == StepStatus.FAILED:
        facts += [tokens.fact("error", "any"), tokens.fact("error", step.error_kind or "other")]
    return facts


def _heads(runs: Collection[int]) -> Iterator[Entry]:
    """Question, and answer where there is one. A run that was retried may have another answer later."""
    tries: dict[int, int] = {}
    for run in Event.objects.filter(run__in=runs, kind=RETRIED).values_list("run_id", flat=True):
        tries[run] = tries.get(run, 0) + 1
    rows = Run.objects.filter(pk__in=runs).values_list(
        "pk", "status", "agent", "started_by", "explanation",
        Left("user_query", SEARCHED), Left("final_response", SEARCHED),
    )  # fmt: skip
    for pk, status, agent, who, explanation, question, answer in rows:
        yield fulltext.entry_id(pk, 0, 0), tokens.document([question, agent, who], [])
        if status in ENDED:
            version = 1 + tries.get(pk, 0)
            yield fulltext.entry_id(pk, 0, version), tokens.document([question, answer, explanation], [])
