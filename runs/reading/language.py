"""The language of the search box: text to terms and back. Pure; knows no table.

    pool "connection reset" status:failed,stopped cost:>0.5 -tool:search_logs after:2d

A term is a word, a quoted phrase, or `field:value`; a minus before it means "not". All terms have to hold.
A quotation mark within a phrase is written twice.
Several values with commas between them mean any of them. What cannot be understood raises QueryError with a
sentence that says what to do.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from tools.redaction import visible

MOST_CHARACTERS = 500
MOST_TERMS = 20

STATUSES = ("queued", "running", "waiting", "paused", "succeeded", "stopped", "failed", "cancelled")
EFFECTS = ("read", "write", "destructive")
HAS = ("approval", "error", "note", "answer", "tag", "unknown", "unpriced")
CLASSES = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output", "web_search")
CHARGES = ("unpriced", "priced", "failed", "answered", "estimated")
IS = ("open", "ended", "simulated", "live", "fork")

# name, what it is about, an example of a value
FIELDS: dict[str, tuple[str, str]] = {
    "status": ("state of the run: " + ", ".join(STATUSES), "failed"),
    "agent": ("agent of the run", "incident"),
    "model": ("model of the run; a star at the end stands for anything", "claude-sonnet*"),
    "user": ("who started it", "olga"),
    "tag": ("a tag of the run", "regression"),
    "tool": ("a step that called this tool", "search_logs"),
    "effect": ("a step whose tool reads, writes or destroys", "destructive"),
    "error": ("a step that failed, by its kind; error:any for all of them", "timeout"),
    "cost": ("USD", ">0.5"),
    "tokens": ("tokens of all classes; k and M are understood", ">100k"),
    "steps": ("number of steps", ">20"),
    "duration": ("from start to end; s, m, h and d are understood", ">10m"),
    "after": ("started at or after: a date, a time, or an age", "2d"),
    "before": ("started before: a date, a time, or an age", "2026-11-20"),
    "charged": ("had a model call in this stretch of time", "2026-11-01..2026-11-08"),
    "caused": ("a model call that this tool's results caused; question for the first one", "search_logs"),
    "billed": ("a model call that this model answered", "claude-sonnet-5-5"),
    "class": ("a model call with tokens of this class: " + ", ".join(CLASSES), "cache_read"),
    "charge": ("a model call that is: " + ", ".join(CHARGES), "unpriced"),
    "has": ("what the run has: " + ", ".join(HAS), "approval"),
    "is": ("what the run is: " + ", ".join(IS), "open"),
}
CHOICES = {
    "status": STATUSES, "effect": EFFECTS, "has": HAS, "is": IS, "class": CLASSES, "charge": CHARGES,
}  # fmt: skip
OF_STEPS = frozenset({"tool", "effect", "error"})  # these, and words, have to hold for one and the same step
OF_CHARGES = frozenset({"charged", "caused", "billed", "class", "charge"})  # for one and the same model call
NUMBERS = frozenset({"cost", "tokens", "steps", "duration"})
TIMES = frozenset({"after", "before"})

_PART = re.compile(r'\s*(-?)(?:([A-Za-z_]{2,20}):(?!/))?(?:"((?:[^"]|"")*)("?)|([^\s"]*))')
_COMPARED = re.compile(r"(>=|<=|>|<|=)?(.+)", re.DOTALL)
_AGE = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LARGEST = Decimal(10) ** 15


class QueryError(ValueError):
    """What was typed cannot be understood. The message says what to do; `at` is where, in characters."""

    def __init__(self, message: str, at: int = 0) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True)
class Term:
    """One condition. Without a field it is text; `values` are then its one word or phrase."""

    field: str
    values: tuple[str, ...]
    negated: bool = False
    phrase: bool = False

    def __str__(self) -> str:
        shown = [quoted(value) if self.phrase else value for value in self.values]
        return f"{'-' if self.negated else ''}{self.field + ':' if self.field else ''}{','.join(shown)}"


@dataclass(frozen=True)
class Query:
    """All terms, in the order in which they were typed."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def of(self, field: str) -> tuple[str, ...]:
        """The values that the query asks for in this field; values of terms with a minus are left out."""
        return tuple(v for t in self.terms if t.field == field and not t.negated for v in t.values)

    def without(self, field: str) -> Query:
        """The same query without the terms that ask for a value of this field; terms with a minus stay."""
        return Query(tuple(term for term in self.terms if term.field != field or term.negated))

    def with_value(self, field: str, value: str) -> Query:
        """The same query asking for this value, and no other one, of the field; terms with a minus stay."""
        return Query((*self.without(field).terms, Term(field, (value,), phrase=not is_plain(value))))


@dataclass(frozen=True)
class Comparison:
    """A number and how something has to stand to it: one of > >= < <= =."""

    sign: str
    number: Decimal


def normalised(text: str) -> str:
    """What was typed or pasted as one line in NFC, without characters that stored text does not have."""
    lines = " ".join(text.replace("\x00", " ").splitlines())
    return unicodedata.normalize("NFC", " ".join(visible(lines).splitlines())).strip()


def parse(text: str) -> Query:
    """The terms of what was typed. Raises QueryError and nothing else, whatever the text."""
    text = normalised(text)
    if len(text) > MOST_CHARACTERS:
        raise QueryError(f"The search has {len(text):,} characters; at most {MOST_CHARACTERS} are taken.")
    terms: list[Term] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        assert found is not None  # every part may be empty
        if found.end() == at or not found.group().strip():
            at += 1
            continue
        terms.append(_term(found))
        at = found.end()
    if len(terms) > MOST_TERMS:
        raise QueryError(
            f"The search has {len(terms)} terms; at most {MOST_TERMS} are taken. Leave some out."
        )
    return Query(tuple(terms))


def _term(found: re.Match[str]) -> Term:
    minus, field, phrase, closed, word = found.groups()
    phrase = None if phrase is None else phrase.replace('""', '"')
    at = found.start(1)
    if phrase is not None and not closed:
        raise QueryError('A quotation mark is missing: close the phrase with ".', found.start(3) - 1)
    if field is None:
        return _text(minus, phrase, word, at)
    name = field.lower()
    if name not in FIELDS:
        raise QueryError(_unknown(field), at)
    values = (phrase,) if phrase is not None else tuple(part for part in word.split(",") if part)
    values = tuple(value.strip() for value in values if value.strip())
    if not values:
        raise QueryError(f"Say what {name}: should be, such as {name}:{FIELDS[name][1]}.", at)
    if name in CHOICES:
        values = tuple(value.lower() for value in values)
    for value in values:
        _check(name, value, at)
    if len(values) > 1 and name in NUMBERS | TIMES | {"charged"}:
        raise QueryError(f"Give {name}: one value; for a range write it twice.", at)
    return Term(name, values, bool(minus), phrase is not None)


def _text(minus: str, phrase: str | None, word: str, at: int) -> Term:
    value = (phrase if phrase is not None else word).strip()
    if not any(character.isalnum() for character in value):
        shown = value or ('""' if phrase is not None else minus)
        raise QueryError(f"{shown} has no letter or digit to look for. Leave it out.", at)
    return Term("", (value,), bool(minus), phrase is not None)


def _unknown(field: str) -> str:
    near = difflib.get_close_matches(field.lower(), FIELDS, n=1)
    hint = f"Did you mean {near[0]}:?" if near else f"There are {', '.join(f'{name}:' for name in FIELDS)}."
    return f"There is no field {field}:. {hint} To look for it as text, put it in quotation marks."


def _check(name: str, value: str, at: int) -> None:
    if name in CHOICES and value not in CHOICES[name]:
        near = difflib.get_close_matches(value, CHOICES[name], n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(CHOICES[name])}."
        raise QueryError(f"{name}: cannot be {value}. {hint}", at)
    try:
        if name in NUMBERS:
            comparison(name, value)
        elif name in TIMES:
            moment(value, datetime(2000, 1, 1, tzinfo=UTC))
        elif name == "charged":
            stretch(value, datetime(2000, 1, 1, tzinfo=UTC))
    except QueryError as error:
        raise QueryError(str(error), at) from error


def comparison(name: str, value: str) -> Comparison:
    """A value such as >0.5, <=100k or >10m; a duration is in seconds. Without a sign it means at least."""
    found = _COMPARED.fullmatch(value)
    sign, number = found.groups() if found else (None, value)
    units: dict[str, Callable[[], int]] = {}
    if name == "duration":
        units = {unit: lambda unit=unit: _SECONDS[unit] for unit in "smhd"}  # type: ignore[misc]
    elif name in {"tokens", "steps"}:
        units = {"k": lambda: 1_000, "m": lambda: 1_000_000}
    factor = units[number[-1].lower()]() if number[-1].lower() in units else 1
    digits = number[:-1] if factor != 1 or number[-1].lower() in units else number
    try:
        if not re.fullmatch(r"\$?\d{1,15}(\.\d{1,10})?", digits, re.ASCII):
            raise InvalidOperation
        amount = Decimal(digits.lstrip("$")) * factor
    except InvalidOperation:
        amount = _LARGEST
    if amount >= _LARGEST:
        raise QueryError(f"{name}: needs a number, such as {name}:{FIELDS[name][1]}; {value} is none.")
    return Comparison(sign or ">=", amount)


def moment(value: str, now: datetime) -> datetime:
    """A date, a time in UTC or an age such as 2d, as a time: 2026-11-20, 2026-11-20T07:30, today, 36h."""
    if value == "today":
        return now.replace(hour=0, minute=0, second=0, microsecond=0)
    if value == "yesterday":
        return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    try:
        if age := _AGE.fullmatch(value):
            return now - timedelta(seconds=int(age[1]) * _SECONDS[age[2]])
        if re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?Z?)?", value, re.ASCII):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    raise QueryError(
        f"{value} is no time. Write a date such as 2026-11-20, a time such as 2026-11-20T07:30 (UTC), or an "
        "age such as 30m, 12h or 7d."
    )


def stretch(value: str, now: datetime) -> tuple[datetime | None, datetime | None]:
    """From the first moment to before the second; either may be missing. A day alone is that whole day."""
    first, dots, last = value.partition("..")
    if not dots:
        since = moment(first, now)
        is_day = len(first) == 10 and "-" in first
        return since, since + timedelta(days=1) if is_day else None
    if not first and not last:
        raise QueryError(f"Say from when to when, such as charged:{FIELDS['charged'][1]}.")
    return (moment(first, now) if first else None), (moment(last, now) if last else None)


def quoted(value: str) -> str:
    """The value as a phrase; a quotation mark within is written twice."""
    return '"' + value.replace('"', '""') + '"'


def is_plain(value: str) -> bool:
    """Whether a value needs no quotation marks."""
    return bool(value) and not re.search(r'[\s,"]', value)
