"""The list of runs: search, filters, pages by key."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from runs.models import Run, RunStatus
from runs.reading.run_rows import RunRow, light, rows_of

PAGE_SIZE = 50
FACET_CAP = 1000
NEW_CAP = 100
MAX_SEARCH = 200
UUID_DIGITS = 32
REQUEST_ID = re.compile(r"[0-9a-f]{4,32}")  # with fewer digits every number would be one, too
NOTHING = Q(pk__in=())
FACET_ORDER = ("waiting", "running", "queued", "paused", "succeeded", "stopped", "failed", "cancelled")


@dataclass(frozen=True)
class Cursor:
    """A place in the list, newest first: pages by key stay right while new runs arrive."""

    created_at: datetime
    pk: int

    def __str__(self) -> str:
        return f"{round(self.created_at.timestamp() * 1_000_000)}-{self.pk}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """The cursor in an address, or None when it is none."""
        stamp, _, pk = text.partition("-")
        if not (stamp.isdecimal() and pk.isdecimal() and len(stamp) < 18 and len(pk) < 19):
            return None
        return cls(datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(stamp)), int(pk))

    def older(self) -> Q:
        """Runs after this place, which are older."""
        return Q(created_at__lte=self.created_at) & (
            Q(created_at__lt=self.created_at) | Q(created_at=self.created_at, pk__lt=self.pk)
        )

    def newer(self) -> Q:
        """Runs before this place, which are newer."""
        return Q(created_at__gte=self.created_at) & (
            Q(created_at__gt=self.created_at) | Q(created_at=self.created_at, pk__gt=self.pk)
        )


@dataclass(frozen=True)
class RunQuery:
    """What the list was asked for."""

    text: str = ""
    status: str = ""
    agent: str = ""
    before: Cursor | None = None

    @classmethod
    def parse(cls, parameters: dict[str, str]) -> RunQuery:
        """From the parameters of an address; what makes no sense is left out."""
        status = parameters.get("status", "")
        return cls(
            text=parameters.get("q", "").replace("\x00", "").strip()[:MAX_SEARCH],
            status=status if status in RunStatus.values else "",
            agent=parameters.get("agent", "").replace("\x00", "")[:64],
            before=Cursor.parse(parameters.get("before", "")),
        )

    @property
    def is_filtered(self) -> bool:
        return bool(self.text or self.status or self.agent)

    @property
    def address(self) -> str:
        """The query string of this list, without a leading question mark."""
        pairs = {"q": self.text, "status": self.status, "agent": self.agent, "before": self.before}
        return urlencode({name: str(value) for name, value in pairs.items() if value})

    def newest(self) -> RunQuery:
        return replace(self, before=None)

    def without(self, name: str) -> RunQuery:
        """The same list from its beginning without one of its filters: text, status or agent."""
        return RunQuery(
            text="" if name == "text" else self.text,
            status="" if name == "status" else self.status,
            agent="" if name == "agent" else self.agent,
        )

    def matching(self) -> QuerySet[Run]:
        """The runs that fit, before any page is cut out."""
        runs = Run.objects.all()
        if self.status:
            runs = runs.filter(status=self.status)
        if self.agent:
            runs = runs.filter(agent=self.agent)
        if self.text:
            runs = runs.filter(
                Q(user_query__icontains=self.text)
                | Q(final_response__icontains=self.text)
                | Q(agent__icontains=self.text)
                | request_id_begins(self.text)
            )
        return runs


def request_id_begins(text: str) -> Q:
    """Runs whose request id begins with this text, dashes or not; no runs when it cannot be a request id.

    A range, because databases keep an id as text or as a number of their own and compare both alike.
    """
    digits = text.replace("-", "").lower()
    if not REQUEST_ID.fullmatch(digits):
        return NOTHING
    return Q(
        request_id__gte=UUID(digits.ljust(UUID_DIGITS, "0")),
        request_id__lte=UUID(digits.ljust(UUID_DIGITS, "f")),
    )


@dataclass(frozen=True)
class RunPage:
    """One page of the list."""

    rows: tuple[RunRow, ...]
    older: RunQuery | None

    @property
    def pks(self) -> list[int]:
        return [row.pk for row in self.rows]


@dataclass(frozen=True)
class Facet:
    """One value of a filter, how many runs have it, and the list it leads to."""

    value: str
    count: int
    chosen: bool
    address: str


@dataclass(frozen=True)
class Facets:
    """Filters with counts over the newest FACET_CAP runs that fit the search."""

    statuses: tuple[Facet, ...]
    agents: tuple[Facet, ...]
    total: int

    @property
    def capped(self) -> bool:
        return self.total >= FACET_CAP


def read_page(query: RunQuery, *, now: datetime) -> RunPage:
    """One page of runs, newest first: four queries."""
    runs = query.matching().order_by("-created_at", "-pk")
    if query.before is not None:
        runs = runs.filter(query.before.older())
    found = list(light(runs)[: PAGE_SIZE + 1])
    more = len(found) > PAGE_SIZE
    found = found[:PAGE_SIZE]
    older = replace(query, before=Cursor(found[-1].created_at, found[-1].pk)) if more else None
    return RunPage(rows_of(found, now), older)


def count_newer(query: RunQuery, than: Cursor | None) -> int:
    """How many runs that fit the query are newer than this place, up to NEW_CAP."""
    runs = query.matching()
    if than is not None:
        runs = runs.filter(than.newer())
    return runs.order_by()[:NEW_CAP].count()


def newest_cursor() -> Cursor | None:
    """Where the list begins now; runs before it are new to whoever read it."""
    newest = Run.objects.order_by("-created_at", "-pk").values_list("created_at", "pk").first()
    return Cursor(*newest) if newest else None


def read_facets(query: RunQuery) -> Facets:
    """Counts per status and agent: one query, bounded however many runs there are."""
    recent = replace(query, status="", agent="", before=None).matching().order_by("-created_at", "-pk")
    counts = list(
        Run.objects.filter(pk__in=recent.values("pk")[:FACET_CAP])
        .order_by()
        .values_list("status", "agent")
        .annotate(n=Count("pk"))
    )
    by_status: dict[str, int] = dict.fromkeys(FACET_ORDER, 0)
    by_agent: dict[str, int] = {query.agent: 0} if query.agent else {}
    for status, agent, n in counts:
        if not query.agent or agent == query.agent:
            by_status[status] = by_status.get(status, 0) + n
        if not query.status or status == query.status:
            by_agent[agent] = by_agent.get(agent, 0) + n
    return Facets(
        statuses=tuple(_facet(query, "status", value, by_status[value]) for value in FACET_ORDER),
        agents=tuple(_facet(query, "agent", value, by_agent[value]) for value in sorted(by_agent)),
        total=sum(n for _, _, n in counts),
    )


def _facet(query: RunQuery, name: str, value: str, count: int) -> Facet:
    """A click on the chosen value takes the filter away again."""
    chosen = getattr(query, name) == value
    changed = RunQuery(
        text=query.text,
        status=query.status if name != "status" else "" if chosen else value,
        agent=query.agent if name != "agent" else "" if chosen else value,
    )
    return Facet(value, count, chosen, changed.address)
