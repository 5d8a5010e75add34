"""The statement of a month: what a finance person files. Every line is arithmetic over the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from django.db.models import Count, QuerySet, Sum

from runs.models import Charge, Price, RunTag, Statement
from runs.models.charge import PRICED_CLASSES
from runs.money import FRACTION, MILLION
from runs.reading.entries import month_entries
from runs.reading.statement_digest import SETTLED, Digest, bounds, closed_digest, digest_of, months_between

MOST_DIGESTED = (
    20_000  # entries that a page adds up by itself; of more, the worker does it when it closes them
)
TOKENS = tuple(f"{name}_tokens" for name in PRICED_CLASSES)
CLASS_NAMES = {
    "input": "input",
    "cache_write_5m": "cache write, 5 min",
    "cache_write_1h": "cache write, 1 h",
    "cache_read": "cache read",
    "output": "output",
    "web_search": "web searches",
}
ZERO = Decimal(0)


@dataclass(frozen=True)
class ClassLine:
    """Tokens (or searches) of one class at one price: their product is the amount, to the last digit."""

    name: str
    count: int
    unit: Decimal  # per million tokens, or per thousand searches
    amount: Decimal


@dataclass(frozen=True)
class PriceGroup:
    """One model at one price: its lines add up to `amount`; `rounding` is what entries were rounded."""

    model: str
    source: str
    lines: tuple[ClassLine, ...]
    rounding: Decimal
    amount: Decimal


@dataclass
class Sums:
    """Entries, tokens, and the amount of those that have a price."""

    entries: int = 0
    tokens: int = 0
    amount: Decimal = ZERO
    unpriced_tokens: int = 0

    @property
    def is_unpriced(self) -> bool:
        """Whether nothing of it has a price: that is no zero."""
        return bool(self.tokens) and self.unpriced_tokens == self.tokens

    def add(self, row: dict[str, Any]) -> None:
        """One group of entries."""
        self.entries += row["entries"]
        tokens = sum(row[name] for name in TOKENS)
        self.tokens += tokens
        if row["amount"] is None:
            self.unpriced_tokens += tokens
        else:
            self.amount += Decimal(row["amount"]) / FRACTION


@dataclass
class UnpricedLine:
    """What a model used without a price, by class."""

    model: str
    entries: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKENS, 0))
    web_searches: int = 0

    @property
    def total(self) -> int:
        return sum(self.tokens.values())


@dataclass
class Book:
    """Everything of one kind, real or simulated: usage of the month, and corrections for earlier ones."""

    simulated: bool
    total: Sums = field(default_factory=Sums)
    by_agent: dict[tuple[str, str], Sums] = field(default_factory=lambda: defaultdict(Sums))
    by_user: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))
    by_tag: list[tuple[str, Decimal]] = field(default_factory=list)
    prices: list[PriceGroup] = field(default_factory=list)
    unpriced: list[UnpricedLine] = field(default_factory=list)
    failed: Sums = field(default_factory=Sums)
    estimated: Sums = field(default_factory=Sums)
    corrections: Sums = field(default_factory=Sums)
    corrected_models: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))
    corrected_later: Sums = field(default_factory=Sums)

    @property
    def due(self) -> Decimal:
        """The month's usage and what was corrected in it for earlier months."""
        return self.total.amount + self.corrections.amount

    @property
    def now_reported(self) -> Decimal:
        """What reports say of this month's usage, which count corrections at the time of the usage."""
        return self.total.amount + self.corrected_later.amount

    @property
    def agents(self) -> list[tuple[str, str, Sums]]:
        """Agent, model and their sums, the dearest first."""
        lines = [(agent, model, sums) for (agent, model), sums in self.by_agent.items()]
        return sorted(lines, key=lambda line: (-line[2].amount, line[0], line[1]))

    @property
    def users(self) -> list[tuple[str, Sums]]:
        return sorted(self.by_user.items(), key=lambda line: (-line[1].amount, line[0]))

    @property
    def corrected(self) -> list[tuple[str, Sums]]:
        return sorted(self.corrected_models.items())


@dataclass(frozen=True)
class MonthStatement:
    """A month: its books, and the digest over all of its entries (None: too many for a page)."""

    month: date
    first: datetime
    after: datetime
    read_at: datetime
    books: tuple[Book, ...]
    digest: Digest | None
    closed: Statement | None
    contradiction: str

    @property
    def is_provisional(self) -> bool:
        return self.read_at < self.after + SETTLED

    @property
    def settles_at(self) -> datetime:
        return self.after + SETTLED


def read_statement(month: date, *, now: datetime) -> MonthStatement:
    """The statement of the month with this first day: a handful of sums over its entries."""
    first, after = bounds(month)
    corrected, own = month_entries(first, after)
    later = Charge.objects.filter(number__gt=0, at__gte=first, at__lt=after, booked_at__gte=after)
    books = {False: Book(False), True: Book(True)}
    rows = list(_grouped(own))
    prices = Price.objects.in_bulk({row["price"] for row in rows if row["price"] is not None})
    for simulated, book in books.items():
        _fill(book, [row for row in rows if row["simulated"] == simulated], prices)
    for row in _grouped(corrected):
        books[row["simulated"]].corrections.add(row)
        books[row["simulated"]].corrected_models[row["model"]].add(row)
    for row in _grouped(later):
        books[row["simulated"]].corrected_later.add(row)
    _add_tags(books, own)
    closed = Statement.objects.filter(month=month).first()
    count = sum(book.total.entries + book.corrections.entries for book in books.values())
    digest = digest_of(month) if count <= MOST_DIGESTED else closed_digest(closed)
    return MonthStatement(
        month=month,
        first=first,
        after=after,
        read_at=now,
        books=tuple(book for book in books.values() if book.total.entries or book.corrections.entries),
        digest=digest,
        closed=closed,
        contradiction=_contradiction(closed, books, count, digest),
    )


def read_months(*, now: datetime) -> list[tuple[date, Statement | None]]:
    """All months from the first entry to this one, newest first, with what was written at their end."""
    first = Charge.objects.order_by("at").values_list("at", flat=True).first() or now
    closed = {statement.month: statement for statement in Statement.objects.all()}
    months = months_between(first, now.astimezone(UTC).date())
    return [(month, closed.get(month)) for month in reversed(months)]


def _grouped(rows: QuerySet[Charge]) -> Iterable[dict[str, Any]]:
    sums = {name: Sum(name) for name in (*TOKENS, "web_searches", "amount")}
    by = ("agent", "user", "model", "simulated", "failed", "estimated", "price")
    found: Iterable[dict[str, Any]] = rows.order_by().values(*by).annotate(entries=Count("pk"), **sums)
    return found


def _fill(book: Book, rows: list[dict[str, Any]], prices: dict[int, Price]) -> None:
    by_price: dict[tuple[str, int], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    unpriced: dict[str, UnpricedLine] = {}
    for row in rows:
        book.total.add(row)
        book.by_agent[row["agent"], row["model"]].add(row)
        book.by_user[row["user"]].add(row)
        if row["failed"]:
            book.failed.add(row)
        if row["estimated"]:
            book.estimated.add(row)
        if row["price"] is None:
            line = unpriced.setdefault(row["model"], UnpricedLine(row["model"]))
            line.entries += row["entries"]
            line.web_searches += row["web_searches"]
            for name in TOKENS:
                line.tokens[name] += row[name]
            continue
        sums = by_price[row["model"], row["price"]]
        for name in (*TOKENS, "web_searches", "amount"):
            sums[name] += row[name]
    book.unpriced = [line for _, line in sorted(unpriced.items()) if line.total or line.web_searches]
    groups = [price_group(model, prices[key], sums) for (model, key), sums in by_price.items()]
    book.prices = sorted(groups, key=lambda group: (-group.amount, group.model, group.source))


def price_group(model: str, price: Price, sums: dict[str, int]) -> PriceGroup:
    """The lines of one model at one price; `sums` has tokens by class, `web_searches` and `amount`."""
    lines = []
    for name in PRICED_CLASSES:
        unit: Decimal = getattr(price, name)
        if count := sums[f"{name}_tokens"]:
            lines.append(ClassLine(CLASS_NAMES[name], count, unit, count * unit / MILLION))
    if count := sums["web_searches"]:
        unit = price.web_search
        lines.append(ClassLine(CLASS_NAMES["web_search"], count, unit, count * unit / 1000))
    amount = Decimal(sums["amount"]) / FRACTION
    rounding = amount - sum((line.amount for line in lines), ZERO)
    return PriceGroup(model, price.source, tuple(lines), rounding, amount)


def _add_tags(books: dict[bool, Book], own: QuerySet[Charge]) -> None:
    if not RunTag.objects.exists():
        return
    tagged = own.filter(run__tags__isnull=False).order_by().values_list("run__tags__name", "simulated")
    for name, simulated, amount in tagged.annotate(amounts=Sum("amount")).order_by("run__tags__name"):
        books[simulated].by_tag.append((name, Decimal(amount or 0) / FRACTION))


def _contradiction(
    closed: Statement | None, books: dict[bool, Book], count: int, digest: Digest | None
) -> str:
    """What no longer is as it was when the month was closed, in a sentence; empty when all is."""
    if closed is None:
        return ""
    now = (count, int(books[False].due * FRACTION), int(books[True].due * FRACTION))
    if now != (closed.entries, closed.amount, closed.simulated_amount):
        return (
            f"When it was closed it had {closed.entries:,} entries, now it has {count:,}, or other amounts."
        )
    if digest is not None and digest.sha256 != closed.sha256:
        return "An entry says something else than when it was closed: the digests differ."
    return ""
