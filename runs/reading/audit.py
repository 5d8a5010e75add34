"""The chains of events of all runs, checked in one pass whose memory does not grow with them.

A chain shows that an event was changed, left out, added or put elsewhere by somebody who could not compute
everything after it anew. Whoever can rewrite the whole table can do that; against them only heads help that
were noted elsewhere: `Note` is such a list of heads, and `compare` says which of them are gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import batched, groupby
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from runs.models import Event, PolicyChange, Run, event_hash

CHUNK = 2_000  # rows of events read at once
NOTED_AT_ONCE = 200  # heads of a note looked up at once; SQLite allows no deeper expressions than 1,000
SENTENCES = 10  # per run; what is broken everywhere need not be said of each event
HEADER = "agentops heads"
RULES = "rules"  # what the head of the chain of rules has in place of a request id
COLUMNS = (
    "pk",
    "request_id",
    "last_event",
    "last_event_hash",
    "events__seq",
    "events__kind",
    "events__actor",
    "events__data",
    "events__at",
    "events__previous_hash",
    "events__hash",
)


class Link(NamedTuple):
    """One event of a chain, with what its run says of the chain's end."""

    run_pk: int
    request_id: UUID
    last_event: int
    last_event_hash: str
    seq: int | None  # None: the run has no event
    kind: str
    actor: str
    data: str
    at: datetime
    previous_hash: str
    hash: str


class Head(NamedTuple):
    """The end of one chain."""

    request_id: str
    seq: int
    hash: str

    @property
    def line(self) -> str:
        return f"{self.request_id} {self.seq} {self.hash or '-'}\n"


@dataclass(frozen=True)
class Chain:
    """One run's chain: where it ends, and what is wrong with it, one sentence each."""

    head: Head
    events: int
    problems: tuple[str, ...]


@dataclass
class Digest:
    """SHA-256 over the lines of all heads in order: one value that stands for all chains together.

    The chain of rules comes last, when there is one.
    """

    count: int = 0
    _hash: Any = field(default_factory=hashlib.sha256, repr=False)

    def add(self, head: Head) -> None:
        """The next head, in the order of the runs."""
        self._hash.update(head.line.encode())
        self.count += head.request_id != RULES

    @property
    def value(self) -> str:
        return str(self._hash.hexdigest())


def read_chains(*, request_id: UUID | None = None, since: datetime | None = None) -> Iterator[Chain]:
    """Check the chains of all runs, of one run, or of those that something happened in since.

    One statement reads runs and events, so that what is written meanwhile does not look like a contradiction.
    """
    runs = Run.objects.order_by("pk", "events__seq", "events__pk")
    if request_id is not None:
        runs = runs.filter(request_id=request_id)
    if since is not None:
        # A run whose last event cannot be found is checked, too.
        ended_before = Event.objects.filter(run=OuterRef("pk"), seq=OuterRef("last_event"), at__lt=since)
        runs = runs.exclude(Exists(ended_before))
    links = map(Link._make, runs.values_list(*COLUMNS).iterator(chunk_size=CHUNK))
    for _, chain in groupby(links, key=itemgetter(0)):
        yield _checked(chain)


def stray_events() -> int:
    """How many events belong to no run: their runs were deleted around this program."""
    return Event.objects.filter(~Exists(Run.objects.filter(pk=OuterRef("run_id")))).count()


def _checked(links: Iterable[Link]) -> Chain:
    problems: list[str] = []
    last: Link | None = None
    count = number = 0
    tip = ""
    for last in links:
        if last.seq is None:
            break
        problems.extend(_broken(last, number, tip))
        count, number, tip = count + 1, last.seq, last.hash
    assert last is not None
    if (last.last_event, last.last_event_hash) != (number, tip):
        problems.append(
            f"the run row says that event {last.last_event} ({_short(last.last_event_hash)}) is the last, "
            f"the chain ends with event {number} ({_short(tip)})"
        )
    if len(problems) > SENTENCES:
        problems[SENTENCES:] = [f"and {len(problems) - SENTENCES} more of this kind"]
    return Chain(Head(str(last.request_id), number, tip), count, tuple(problems))


def _broken(link: Link, number: int, tip: str) -> Iterator[str]:
    """What is wrong with this event, which should follow event `number` whose hash is `tip`."""
    assert link.seq is not None
    if link.seq == number:
        yield f"two events are numbered {number}: the chain forks there"
    elif link.seq == number + 2:
        yield f"event {number + 1} is missing"
    elif link.seq != number + 1:
        yield f"events {number + 1} to {link.seq - 1} are missing"
    elif link.previous_hash != tip:
        yield f"event {link.seq} ({link.kind}) does not follow event {number}: {_origin(link)}"
    expected = event_hash(
        previous_hash=link.previous_hash,
        request_id=str(link.request_id),
        seq=link.seq,
        kind=link.kind,
        actor=link.actor,
        data=link.data,
        at=link.at,
    )
    if link.hash != expected:
        yield f"event {link.seq} ({link.kind} by {link.actor}) was changed: it does not give its hash"


def _origin(link: Link) -> str:
    """Which event it continues instead."""
    if not link.previous_hash:
        return "it says that it is the first one"
    other = Event.objects.filter(run_id=link.run_pk, hash=link.previous_hash).values_list("seq", flat=True)
    seq = other.first()
    return "the one it continues is not there" if seq is None else f"the chain forks at event {seq}"


@dataclass(frozen=True)
class Note:
    """A list of heads that was written down earlier, and the digest over all of them."""

    heads: tuple[Head, ...]
    digest: str

    @classmethod
    def parse(cls, text: str) -> Note:
        """The note in the text of a file; ValueError with a sentence when it is none or was changed."""
        first, *lines = text.splitlines() or [""]
        heads, digest = [], Digest()
        for number, line in enumerate(lines, 2):
            parts = line.split()
            if len(parts) != 3 or not parts[1].isdecimal():
                raise ValueError(f"Line {number} is no head: it needs a request id, a number and a hash.")
            heads.append(Head(parts[0], int(parts[1]), parts[2].removeprefix("-")))
            digest.add(heads[-1])
        if not first.startswith(f"{HEADER} "):
            raise ValueError(f"It is no list of heads: its first line does not begin with “{HEADER}”.")
        if first.split()[2] != digest.value:
            raise ValueError("It was changed since it was written: its heads do not give its digest.")
        return cls(tuple(heads), digest.value)


def compare(note: Note) -> Iterator[str]:
    """What was rewritten, cut off or deleted since the note was made, one sentence per run."""
    yield from _compare_rules([head for head in note.heads if head.request_id == RULES])
    of_runs = (head for head in note.heads if head.request_id != RULES)
    for heads in batched(of_runs, NOTED_AT_ONCE, strict=False):
        runs = {str(run.request_id): run for run in _runs(heads)}
        places = Q(pk__in=())
        for head in heads:
            if head.request_id in runs:
                places |= Q(run_id=runs[head.request_id].pk, seq=head.seq)
        found = dict(Event.objects.filter(places).values_list("run_id", "hash"))
        for head in heads:
            run = runs.get(head.request_id)
            if run is None:
                yield f"run {head.request_id} is gone: it was noted with {head.seq} events"
            elif head.seq and run.pk not in found:
                yield f"run {head.request_id} was cut off: event {head.seq}, which was noted, is not there"
            elif head.seq and found[run.pk] != head.hash:
                yield (
                    f"run {head.request_id} was rewritten: event {head.seq} was noted as "
                    f"{_short(head.hash)} and is {_short(found[run.pk])}"
                )


def _compare_rules(heads: Iterable[Head]) -> Iterator[str]:
    for head in heads:
        changes = PolicyChange.objects.order_by("pk").values_list("hash", flat=True)
        found = changes[head.seq - 1 : head.seq].first()
        if found is None:
            yield f"the rules were cut off: change {head.seq}, which was noted, is not there"
        elif found != head.hash:
            yield (
                f"the rules were rewritten: change {head.seq} was noted as {_short(head.hash)} and is "
                f"{_short(found)}"
            )


def _runs(heads: Iterable[Head]) -> QuerySet[Run]:
    ids = [UUID(head.request_id) for head in heads]
    return Run.objects.filter(request_id__in=ids).only("pk", "request_id")


def _short(value: str) -> str:
    return f"{value[:8]}…" if value else "none"
