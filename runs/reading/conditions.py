"""What a search means: its terms as conditions on runs, and as what a step has to hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import DateTimeField, F, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from runs import tokens
from runs.fulltext import Match, Phrase
from runs.models import ENDED, Approval, Run, RunNote, RunTag, Step, StepStatus
from runs.models.run import LENGTH, TOKENS, Seconds
from runs.reading import charge_terms as charges
from runs.reading.language import (
    NUMBERS,
    OF_CHARGES,
    OF_STEPS,
    TIMES,
    Comparison,
    Query,
    QueryError,
    Term,
    comparison,
    moment,
)

NOTHING = Match(())
COMPARED = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "=": "exact"}
NUMBER_KEYS = {
    "cost": "cost_usd", "tokens": "all_tokens", "steps": "step_count", "duration": "duration",
    "length": "length",
}  # fmt: skip
COLUMNS = {"status": "status", "agent": "agent", "model": "model", "user": "started_by"}
# Where a condition is an index of its own, the runs behind it can be counted and listed at once.
INDEXED = frozenset({"status", "agent", "user"})


@dataclass(frozen=True)
class Choice:
    """A condition that indexes answer, in parts: its runs are listed without looking at others."""

    field: str
    parts: tuple[Q, ...]
    order: str = ""  # of the index that answers the first part, so that no planner reads the table instead


@dataclass
class Conditions:
    """All that has to hold of a run."""

    columns: list[Q] = field(default_factory=list)
    match: Match = NOTHING  # one of its steps, or its question and answer, holds all of this
    absent: list[Match] = field(default_factory=list)  # and none of them any of these
    choices: list[Choice] = field(default_factory=list)
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.columns or self.match or self.absent or self.since or self.until)

    @property
    def has_text(self) -> bool:
        return bool(self.match or self.absent)

    def applied(self, runs: QuerySet[Run]) -> QuerySet[Run]:
        """Those of these runs whose columns fit; what their steps hold is looked up apart."""
        if self.since is not None:
            runs = runs.filter(created_at__gte=self.since)
        if self.until is not None:
            runs = runs.filter(created_at__lt=self.until)
        for condition in self.columns:
            runs = runs.filter(condition)
        return runs


def conditions_of(query: Query, now: datetime) -> Conditions:
    """The conditions of a query. Raises QueryError for a time that does not exist at this moment."""
    found = Conditions()
    groups: list[tuple[Phrase, ...]] = []
    for term in query.terms:
        if term.field in OF_STEPS or not term.field:
            phrases = tuple(_phrase(term, value) for value in term.values)
            if term.negated:
                found.absent.append(Match((phrases,)))
            else:
                groups.append(phrases)
        elif term.field in TIMES:
            _limit(found, term, moment(term.values[0], now))
        elif term.field in OF_CHARGES:
            continue
        else:
            condition = reduce(or_, (_condition(term.field, value) for value in term.values))
            found.columns.append(~condition if term.negated else condition)
            if not term.negated and _is_indexed(term):
                found.choices.append(Choice(term.field, _parts(term, condition), _order(term)))
    found.match = Match(tuple(groups))
    _add_charges(found, query, now)
    return found


def _add_charges(found: Conditions, query: Query, now: datetime) -> None:
    """What has to hold of one and the same model call; each term with a minus of none."""
    terms = [term for term in query.terms if term.field in OF_CHARGES]
    found.columns += [~charges.behind([term], now) for term in terms if term.negated]
    wanted = [term for term in terms if not term.negated]
    if not wanted:
        return
    found.columns.append(charges.behind(wanted, now))
    _, until = charges.times(wanted, now)
    if until is not None:  # a run is older than its calls
        found.until = min(found.until or until, until)
    few = charges.among(wanted, now)
    if few is not None:
        found.choices.append(Choice("charged", (few,)))


def _limit(found: Conditions, term: Term, at: datetime) -> None:
    if (term.field == "after") != term.negated:
        found.since = max(found.since or at, at)
    else:
        found.until = min(found.until or at, at)


def _phrase(term: Term, value: str) -> Phrase:
    """What an entry of the index has to hold for this value."""
    begins = value.endswith("*")
    if term.field:
        token = tokens.fact(term.field, value.rstrip("*"))
        return Phrase((token,), begins)
    found = tokens.tokens(value)
    if not found:
        raise QueryError(f"{value} has no letter or digit to look for. Leave it out.")
    return Phrase(tuple(found), begins)


def phrases_of(query: Query) -> list[Phrase]:
    """The words and phrases of a query that are text, to be shown where they stand."""
    terms = [term for term in query.terms if not term.field and not term.negated]
    return [_phrase(term, value) for term in terms for value in term.values]


def _is_indexed(term: Term) -> bool:
    return term.field in INDEXED | NUMBERS | {"tag", "has", "is"} and not any("*" in v for v in term.values)


def _parts(term: Term, condition: Q) -> tuple[Q, ...]:
    """Runs that go on are few, and have no place in the orders of those that ended."""
    if term.field not in NUMBERS:
        return (condition,)
    ended = _number(
        "length" if term.field == "duration" else term.field, comparison(term.field, term.values[0])
    )
    return (ended & Q(ended_at__isnull=False), condition & Q(ended_at__isnull=True))


def _order(term: Term) -> str:
    if term.field not in NUMBERS:
        return ""
    key = NUMBER_KEYS["length" if term.field == "duration" else term.field]
    return f"{'' if comparison(term.field, term.values[0]).sign in {'<', '<='} else '-'}{key}"


def _condition(name: str, value: str) -> Q:
    if name in NUMBERS:
        return _number(name, comparison(name, value))
    if name == "tag":
        return Q(pk__in=RunTag.objects.filter(name=value.lower()).values("run"))
    if name == "has":
        return _has(value)
    if name == "is":
        return _is(value)
    column = COLUMNS[name]
    if value.endswith("*"):
        return Q(**{f"{column}__startswith": value.rstrip("*")})
    return Q(**{column: value})


def _number(name: str, compared: Comparison) -> Q:
    number: Any = float(compared.number) if name in {"duration", "length"} else compared.number
    condition = Q(**{f"{NUMBER_KEYS[name]}__{COMPARED[compared.sign]}": number})
    if name == "cost" and _may_be_zero(compared):  # what has no price at all is unpriced, and not free
        condition &= Q(cost_usd__gt=0) | Q(unpriced_calls=0)
    return condition


def _may_be_zero(compared: Comparison) -> bool:
    return compared.sign in {"<", "<="} or (not compared.number and compared.sign != ">")


def annotated(runs: QuerySet[Run], now: datetime) -> QuerySet[Run]:
    """With the numbers that are no columns, under the names that conditions use."""
    until = Coalesce(F("ended_at"), Value(now, output_field=DateTimeField()))
    duration = Seconds(until, F("started_at"))
    return runs.alias(all_tokens=TOKENS, length=LENGTH, duration=duration)


def _has(value: str) -> Q:
    rows: dict[str, Callable[[], QuerySet[Any]]] = {
        "approval": lambda: Approval.objects.values("run"),
        "note": lambda: RunNote.objects.values("run"),
        "tag": lambda: RunTag.objects.values("run"),
        "unknown": lambda: Step.objects.filter(status=StepStatus.UNKNOWN).values("run"),
    }
    if value in rows:
        return Q(pk__in=rows[value]())
    if value == "unpriced":
        return Q(unpriced_calls__gt=0)
    if value == "answer":
        return ~Q(final_response="")
    return Q(status="failed") | Q(pk__in=Step.objects.filter(status=StepStatus.FAILED).values("run"))


def _is(value: str) -> Q:
    return {
        "open": Q(ended_at__isnull=True),
        "ended": Q(status__in=ENDED),
        "simulated": Q(simulated=True),
        "live": Q(simulated=False),
        "fork": Q(parent_run__isnull=False),
    }[value]
