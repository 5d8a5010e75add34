"""The history of approvals: what was decided, filtered, by date, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q, QuerySet

from runs.models import Approval, ApprovalState, Run, Vote
from runs.reading.asks import Ask, ask_of
from runs.reading.language import normalised
from runs.reading.queue import how_it_ended, light_rows
from runs.reading.runs import Cursor
from runs.tokens import fold

PAGE_SIZE = 50
BATCH = 200  # of an export
CHOICES_OF = 1_000  # newest approvals whose tools, agents, environments and rules are offered
MAX_VOTERS = 200
MAX_TEXT = 200
STATES = tuple((value, label) for value, label in ApprovalState.choices if value != ApprovalState.PENDING)
# Filter of the address -> lookup of the row.
EXACT = {"state": "state", "tool": "step__name", "agent": "run__agent"} | {
    name: name for name in ("environment", "rule")
}


@dataclass(frozen=True)
class HistoryQuery:
    """What the history was asked for. Days are those of UTC, the last one included."""

    text: str = ""
    state: str = ""
    tool: str = ""
    agent: str = ""
    environment: str = ""
    rule: str = ""
    voter: str = ""
    since: date | None = None
    until: date | None = None
    oldest_first: bool = False
    after: Cursor | None = None

    @classmethod
    def parse(cls, parameters: dict[str, str]) -> HistoryQuery:
        """From the parameters of an address; what makes no sense is left out."""
        given = {name: value.replace("\x00", "").strip()[:MAX_TEXT] for name, value in parameters.items()}
        state = given.get("state", "")
        return cls(
            text=normalised(given.get("q", "")),
            state=state if state in dict(STATES) else "",
            **{name: given.get(name, "") for name in ("tool", "agent", "environment", "rule", "voter")},
            since=_day(given.get("since", "")),
            until=_day(given.get("until", "")),
            oldest_first=given.get("order") == "oldest",
            after=Cursor.parse(given.get("after", "")),
        )

    @property
    def is_filtered(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self)[:9])

    @property
    def address(self) -> str:
        """The query string of this page, without a leading question mark."""
        names = ("state", "tool", "agent", "environment", "rule", "voter", "since", "until", "after")
        pairs = {"q": self.text} | {name: getattr(self, name) for name in names}
        pairs["order"] = "oldest" if self.oldest_first else ""
        return urlencode({name: str(value) for name, value in pairs.items() if value})

    def first(self) -> HistoryQuery:
        """The beginning of the same history."""
        return replace(self, after=None)

    def turned(self) -> HistoryQuery:
        """The same history from its other end."""
        return replace(self, after=None, oldest_first=not self.oldest_first)

    def matching(self) -> QuerySet[Approval]:
        """The decided approvals that fit, in order, before any page is cut out."""
        found = Approval.objects.filter(decided_at__isnull=False)
        found = found.filter(
            **{lookup: getattr(self, name) for name, lookup in EXACT.items() if getattr(self, name)}
        )
        for word in fold(self.text).split():
            found = found.filter(searched__contains=word)
        if self.voter:
            votes = Vote.objects.filter(approval=OuterRef("pk"), voter__username=self.voter)
            found = found.filter(Exists(votes))
        if self.since:
            found = found.filter(decided_at__gte=_midnight(self.since))
        if self.until:
            found = found.filter(decided_at__lt=_midnight(self.until) + timedelta(days=1))
        if self.after:
            found = found.filter(self._beyond(self.after))
        return found.order_by(*(("decided_at", "pk") if self.oldest_first else ("-decided_at", "-pk")))

    def _beyond(self, place: Cursor) -> Q:
        """What comes after this place in the order; the first condition lets the index be used."""
        way = "gt" if self.oldest_first else "lt"
        same = Q(decided_at=place.created_at, **{f"pk__{way}": place.pk})
        near = Q(**{f"decided_at__{way}e": place.created_at})
        return near & (Q(**{f"decided_at__{way}": place.created_at}) | same)


@dataclass(frozen=True)
class Entry:
    """One decided approval: the question with its votes, its run, and what became of the call."""

    ask: Ask
    run: Run
    ended: str
    self_approved: bool
    seconds_on_card: tuple[float | None, ...]  # per vote, in the order of the votes


@dataclass(frozen=True)
class HistoryPage:
    """One page of the history, and the query of the next one."""

    entries: tuple[Entry, ...]
    next: HistoryQuery | None


@dataclass(frozen=True)
class Choices:
    """What the filters offer: values of the newest approvals, and whoever has voted."""

    tool: tuple[str, ...]
    agent: tuple[str, ...]
    environment: tuple[str, ...]
    rule: tuple[str, ...]
    voter: tuple[str, ...]


def read_history(query: HistoryQuery, *, viewer: User, now: datetime) -> HistoryPage:
    """One page: two queries."""
    found = list(_rows(query)[: PAGE_SIZE + 1])
    more = len(found) > PAGE_SIZE
    found = found[:PAGE_SIZE]
    return HistoryPage(
        entries=tuple(_entry(approval, viewer, now) for approval in found),
        next=replace(query, after=_place(found[-1])) if more else None,
    )


def read_all(query: HistoryQuery, *, viewer: User, now: datetime) -> Iterator[Entry]:
    """Everything that fits, from the beginning, a batch at a time.

    Each batch is a statement of its own: a slow reader holds no transaction open.
    """
    place = query.first()
    while batch := list(_rows(place)[:BATCH]):
        yield from (_entry(approval, viewer, now) for approval in batch)
        place = replace(place, after=_place(batch[-1]))


def read_choices(query: HistoryQuery) -> Choices:
    """What can be filtered by: two queries, bounded however many approvals there are."""
    newest = Approval.objects.order_by("-pk").values("pk")[:CHOICES_OF]
    names = ("step__name", "run__agent", "environment", "rule")
    rows = list(Approval.objects.filter(pk__in=newest).order_by().values_list(*names).distinct())
    voters = User.objects.filter(Exists(Vote.objects.filter(voter=OuterRef("pk")))).order_by("username")
    return Choices(
        tool=_values([row[0] for row in rows], query.tool),
        agent=_values([row[1] for row in rows], query.agent),
        environment=_values([row[2] for row in rows], query.environment),
        rule=_values([row[3] for row in rows], query.rule),
        voter=_values(list(voters.values_list("username", flat=True)[:MAX_VOTERS]), query.voter),
    )


def _rows(query: HistoryQuery) -> Any:
    return light_rows(query.matching()).only(
        *(field.attname for field in Approval._meta.concrete_fields if field.attname != "arguments"),
        *("run__request_id", "run__agent", "run__created_by", "run__status"),
        *("step__seq", "step__name", "step__status", "step__summary"),
    )


def _entry(approval: Approval, viewer: User, now: datetime) -> Entry:
    approval.arguments = "{}"  # not read: a list shows the headline
    run = approval.run
    votes = [vote for vote in approval.votes.all() if vote.revision == approval.revision]
    return Entry(
        ask=ask_of(approval, step_seq=approval.step.seq, tool=approval.step.name, viewer=viewer, now=now),
        run=run,
        ended=how_it_ended(approval),
        self_approved=any(v.verdict == "approve" and v.voter_id == run.created_by_id for v in votes),
        seconds_on_card=tuple(vote.seconds_on_card for vote in votes),
    )


def _place(approval: Approval) -> Cursor:
    assert approval.decided_at is not None
    return Cursor(approval.decided_at, approval.pk)


def _values(found: list[str], chosen: str) -> tuple[str, ...]:
    return tuple(sorted({*found, chosen} - {""}))


def _day(text: str) -> date | None:
    try:
        # The day after must exist: a period ends at its midnight.
        return (
            date.fromisoformat(text)
            if len(text) == len("2026-11-22") and "1900" < text[:4] < "9999"
            else None
        )
    except ValueError:
        return None


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
