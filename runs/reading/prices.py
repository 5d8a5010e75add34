"""The prices that hold, what people set and why, and what was used without a price."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, F, Min, Q, Sum
from django.utils import timezone

from runs import agents
from runs.models import CONTEXTS, Charge, Price, PriceChange, PriceOverride
from runs.models.charge import PRICED_CLASSES, PRICES, USAGE
from runs.models.prices_in_force import look, unit_prices
from runs.money import UnitPrices
from runs.reading.language import Query

MOST_CHANGES = 50
LONGEST_PROMPT = 1 << 24  # tokens; larger than any model reads
PRICE_LABELS = {
    "input": "Input",
    "cache_write_5m": "Cache write 5 min",
    "cache_write_1h": "Cache write 1 h",
    "cache_read": "Cache read",
    "output": "Output",
    "web_search": "1,000 searches",
}
TOKENS = reduce(lambda sum_, name: sum_ + F(f"{name}_tokens"), PRICED_CLASSES[1:], F("input_tokens") + 0)


@dataclass(frozen=True)
class PriceLine:
    """What a call of a model costs now, in one context and for one size of prompts; None: unpriced."""

    model: str
    about: str  # the context and size, in words; empty: a standard call
    prices: UnitPrices | None
    override: int | None
    agents: tuple[str, ...] = ()

    @property
    def units(self) -> tuple[tuple[str, Decimal | None], ...]:
        """Label and USD of each class."""
        return tuple((label, getattr(self.prices, name, None)) for name, label in PRICE_LABELS.items())


@dataclass(frozen=True)
class UnpricedLine:
    """What was used of a model in a context without a price, as the ledger stands now."""

    model: str
    context: str
    simulated: bool
    calls: int
    tokens: int
    runs: int
    since: datetime

    @property
    def context_words(self) -> str:
        """For people; what no override can be for is said as it is."""
        return CONTEXTS.get(self.context, self.context)

    @property
    def runs_query(self) -> str:
        """Of the address of the list of these runs: the model that answered need not be that of the run."""
        query = Query()  # has:unpriced has an index, which finds what is rare
        for field, value in (
            ("has", "unpriced"),
            ("is", "simulated" if self.simulated else "live"),
            ("charge", "unpriced"),
            ("billed", self.model),
        ):
            query = query.with_value(field, value)
        return urlencode({"q": str(query)})

    @property
    def form_query(self) -> str:
        """Of the address of the form that prices it."""
        return urlencode({"model": self.model, "context": _closest(self.context)})


@dataclass(frozen=True)
class Said:
    """One revision of an override, in words: what is different, old and new."""

    change: PriceChange
    differences: tuple[tuple[str, str, str], ...]


def read_price_lines(now: datetime) -> tuple[PriceLine, ...]:
    """Each model that agents have, that was charged or that people priced, with the prices of this moment."""
    look()
    of_agents: defaultdict[str, list[str]] = defaultdict(list)
    for agent in agents.installed().values():
        of_agents[agent.model].append(agent.name)
    names = set(of_agents) | set(Price.objects.values_list("model", flat=True).distinct())
    names |= {line.model for line in read_unpriced()}
    overrides = [one for one in PriceOverride.objects.all() if one.rule.holds(now)]
    contexts: defaultdict[str, set[str]] = defaultdict(lambda: {""})
    for override in overrides:
        contexts[override.model].add(override.context)
    lines: list[PriceLine] = []
    for model in sorted(names | set(contexts)):
        for context in sorted(contexts[model], key=list(CONTEXTS).index):
            lines += _lines_of(model, context, now, tuple(of_agents[model]), overrides)
    return tuple(lines)


def read_unpriced() -> tuple[UnpricedLine, ...]:
    """Usage without a price, the most tokens first. What was repriced since is taken out."""
    used = reduce(or_, (~Q(**{name: 0}) for name in USAGE))
    keys = ("model", "context", "simulated")
    of_runs = (
        Charge.objects.filter(used, price__isnull=True)
        .order_by()
        .values(*keys, "run")
        .annotate(calls=Sum("entry"), tokens=Sum(TOKENS), since=Min("at"))
        .filter(calls__gt=0)
    )
    groups: defaultdict[tuple[str, str, bool], list[dict[str, Any]]] = defaultdict(list)
    for row in of_runs:
        groups[row["model"], row["context"], row["simulated"]].append(row)
    lines = [
        UnpricedLine(
            *key,
            calls=sum(row["calls"] for row in rows),
            tokens=sum(row["tokens"] for row in rows),
            runs=len(rows),
            since=min(row["since"] for row in rows),
        )
        for key, rows in groups.items()
    ]
    return tuple(sorted(lines, key=lambda line: (-line.tokens, line.model, line.context)))


def read_overrides(now: datetime) -> tuple[tuple[PriceOverride, str], ...]:
    """All that people have set, with what it is at this moment: holds, begins, ended or withdrawn."""
    rows = PriceOverride.objects.annotate(revisions=Count("changes"))
    return tuple((row, _state(row, now)) for row in rows)


def read_override_changes(override_id: int | None = None) -> tuple[Said, ...]:
    """The history of one override, or the newest changes of all; newest first."""
    changes = PriceChange.objects.select_related("override")
    if override_id is not None:
        changes = changes.filter(override=override_id)
    return tuple(_said(change) for change in changes[:MOST_CHANGES])


def as_text(prices: UnitPrices) -> dict[str, str]:
    """The prices as they can be entered, by class."""
    return {name: f"{getattr(prices, name).normalize():f}" for name in PRICES}


def suggested(model: str, context: str) -> dict[str, str]:
    """What the form of a new price begins with: what the model costs now, and nothing when nobody knows."""
    look()
    prices = unit_prices(model, at=timezone.now(), context=context)
    return {"web_search": "10"} if prices is None else as_text(prices)


def _closest(context: str) -> str:
    """The context of an override that this one can be derived from."""
    for left_out in (set(), {"tools"}, {"tools", "priority"}):
        words = ",".join(word for word in context.split(",") if word not in left_out)
        if words in CONTEXTS:
            return words
    return ""


def _state(row: PriceOverride, now: datetime) -> str:
    if row.is_withdrawn:
        return "withdrawn"
    if row.valid_to is not None and row.valid_to <= now:
        return "ended"
    return "begins" if row.valid_from is not None and row.valid_from > now else "holds"


def _lines_of(
    model: str, context: str, now: datetime, names: tuple[str, ...], overrides: Iterable[PriceOverride]
) -> list[PriceLine]:
    said = "" if context == "" else CONTEXTS[context]
    sources = {one.source: one.pk for one in overrides}

    def line(prompt: int, about: str) -> PriceLine:
        found = unit_prices(model, at=now, prompt_tokens=prompt, context=context)
        override = next(
            (pk for source, pk in sources.items() if found and found.source.startswith(source)), None
        )
        return PriceLine(model, about, found, override, names if not about else ())

    lines = [line(0, said)]
    longest = line(LONGEST_PROMPT, said)
    if longest.prices != lines[0].prices:
        start = _first_dear_prompt(model, now, context) - 1
        about = f"prompts over {start:,} tokens"
        lines.append(line(LONGEST_PROMPT, f"{said}, {about}" if said else about))
    return lines


def _first_dear_prompt(model: str, now: datetime, context: str) -> int:
    """From how many tokens on a prompt has another price; found by halving."""
    small, large = 0, LONGEST_PROMPT
    usual = unit_prices(model, at=now, prompt_tokens=0, context=context)
    while large - small > 1:
        middle = (small + large) // 2
        if unit_prices(model, at=now, prompt_tokens=middle, context=context) == usual:
            small = middle
        else:
            large = middle
    return large


def _said(change: PriceChange) -> Said:
    before = json.loads(change.before) if change.before else {}
    after = json.loads(change.after)
    labels = {**PRICE_LABELS, "valid_from": "Valid from", "valid_to": "Valid to"}
    different = [
        (label, _shown(name, before.get(name, "")) if before else "", _shown(name, after[name]))
        for name, label in labels.items()
        if before.get(name) != after[name] and (before or after[name])
    ]
    return Said(change, tuple(different))


def _shown(name: str, value: str) -> str:
    if name in PRICES:
        return f"${value}"
    if not value:
        return "since ever" if name == "valid_from" else "for good"
    return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M} UTC"
