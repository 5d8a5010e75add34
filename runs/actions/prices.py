"""Prices that people set for a model: each revision stands in a history that is only added to.

A price holds for calls that begin while it is valid. What was charged before keeps its price until somebody
reprices it (`repricing`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from runs.actions.amounts import quoted, read_amount
from runs.actions.budgets import look_at_budgets_again
from runs.actions.change import one_writer
from runs.actions.errors import ActionError
from runs.hints import NO_RUN, announce
from runs.models import CONTEXTS, PriceChange, PriceOverride, Repricing, RepricingState, WhatHappened
from runs.models.charge import PRICES
from runs.models.prices_in_force import look

SMALLEST = Decimal("0.0001")  # a price has four decimals: one token then costs a whole number of FRACTIONs
LARGEST = Decimal(1_000_000)
LONGEST_REASON = 300
PRICE_WORDS = {
    "input": "input",
    "cache_write_5m": "cache writes for 5 minutes",
    "cache_write_1h": "cache writes for 1 hour",
    "cache_read": "cache reads",
    "output": "output",
    "web_search": "a thousand web searches",
}
_NAME = re.compile(r"[!-~]{1,128}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?Z?", re.ASCII)


class InvalidPrice(ActionError):
    """What was entered cannot be a price; `problems` has a sentence for each field that is wrong."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(" ".join(problems.values()))
        self.problems = dict(problems)


class UnknownPrice(ActionError):
    """There is no such override."""


def set_price(
    *,
    actor: str,
    model: str,
    context: str = "",
    prices: Mapping[str, str],
    valid_from: str = "",
    valid_to: str = "",
    reason: str,
    override_id: int | None = None,
) -> PriceOverride:
    """Set a price of a model in a context, or with `override_id` make a new revision of one.

    `prices` are USD per million tokens of each class and per thousand web searches, as texts with at most
    four decimals; times are UTC, such as 2026-11-22 14:30, and empty for "since ever" and "for good". Raises
    InvalidPrice for what cannot be, also for a time in which another override holds, and UnknownPrice.
    """
    values = _checked(model, context, prices, valid_from, valid_to, reason)
    with one_writer(), transaction.atomic():
        _keep_others_out()
        before = None
        if override_id is None:
            override = PriceOverride(set_by=actor, set_at=timezone.now(), **values)
        else:
            override = _find(override_id)
            if (override.model, override.context) != (values["model"], values["context"]):
                raise InvalidPrice({"model": "The model and context of an override stay. Set a new one."})
            before = override.values
            for name, value in values.items():
                setattr(override, name, value)
            if before == override.values:
                return override
        _must_be_alone(override)
        what = WhatHappened.SET if before is None else WhatHappened.CHANGED
        _store(override, before, what, actor, reason)
    look_at_budgets_again(actor=actor, why=f"{actor} set a price of {model.strip()}.", unpriced=True)
    return override


def end_price(*, actor: str, override_id: int, reason: str, at: datetime | None = None) -> PriceOverride:
    """Let an override hold only for calls that began before this moment, by default now.

    One that has not begun by then is withdrawn: it holds never. Raises ActionError.
    """
    _checked_reason(reason)
    with one_writer(), transaction.atomic():
        _keep_others_out()
        override = _find(override_id)
        before = override.values
        now = timezone.now()
        end = now if at is None else at
        if override.valid_to is not None and override.valid_to <= end:
            raise ActionError("It has ended already.")
        starts = override.valid_from
        withdrawn = starts is not None and end <= starts
        override.valid_to = starts if withdrawn else end
        _store(override, before, WhatHappened.WITHDRAWN if withdrawn else WhatHappened.ENDED, actor, reason)
    return override


def withdraw_price(*, actor: str, override_id: int, reason: str) -> PriceOverride:
    """It was a mistake: an override holds for no call at all, also none of the past. Raises ActionError."""
    _checked_reason(reason)
    with one_writer(), transaction.atomic():
        _keep_others_out()
        override = _find(override_id)
        if override.is_withdrawn:
            raise ActionError("It was withdrawn already.")
        before = override.values
        override.valid_from = override.valid_to = override.valid_from or override.set_at
        _store(override, before, WhatHappened.WITHDRAWN, actor, reason)
    return override


def find_price(override_id: int) -> PriceOverride:
    """The override with this number. Raises UnknownPrice."""
    return _find(override_id)


def read_moment(text: str) -> datetime | None:
    """The UTC time that stands there, or None: a date, or a date and a time of day."""
    text = text.strip()
    if not _MOMENT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError:
        return None


def _keep_others_out() -> None:
    """Until the end of this transaction nobody else changes a price or begins to reprice."""
    lock_prices()
    if Repricing.objects.filter(state=RepricingState.APPLYING).exists():
        raise ActionError("A repricing is being applied. Set prices when it is finished.")


def lock_prices() -> None:
    """Inside a transaction: whoever changes prices, or needs them to stay, comes one after another."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE runs_priceoverride IN EXCLUSIVE MODE")


def _find(override_id: int) -> PriceOverride:
    found = PriceOverride.objects.filter(pk=override_id).first()
    if found is None:
        raise UnknownPrice("There is no such price. See the list of prices.")
    return found


def _store(
    override: PriceOverride, before: dict[str, Any] | None, what: WhatHappened, actor: str, reason: str
) -> None:
    override.set_by, override.set_at = actor, timezone.now()
    override.revision += before is not None
    override.save()
    PriceChange.objects.create(
        override=override,
        revision=override.revision,
        what=what,
        before="" if before is None else json.dumps(before),
        after=json.dumps(override.values),
        actor=actor,
        reason=reason.strip(),
        at=override.set_at,
    )
    transaction.on_commit(look)
    announce(NO_RUN)


def _must_be_alone(override: PriceOverride) -> None:
    """Two overrides never hold for one call: which one counted would be anybody's guess."""
    others = PriceOverride.objects.filter(model=override.model, context=override.context)
    if override.pk is not None:
        others = others.exclude(pk=override.pk)
    if override.valid_to is not None:
        others = others.filter(Q(valid_from__isnull=True) | Q(valid_from__lt=override.valid_to))
    if override.valid_from is not None:
        others = others.filter(Q(valid_to__isnull=True) | Q(valid_to__gt=override.valid_from))
    other = next((one for one in others if not one.is_withdrawn), None)
    if other is not None:
        since = f"from {other.valid_from:%Y-%m-%d %H:%M}" if other.valid_from else "since ever"
        until = f"until {other.valid_to:%Y-%m-%d %H:%M}" if other.valid_to else "for good"
        sentence = (
            f"Override {other.pk} of {other.set_by} holds for {override.model} ({other.context_words}) "
            f"{since}, {until} (UTC). Change or end that one, or choose a time in which it does not hold."
        )
        raise InvalidPrice({"valid_from": sentence})


def _checked(
    model: str, context: str, prices: Mapping[str, str], valid_from: str, valid_to: str, reason: str
) -> dict[str, Any]:
    """The columns of an override, or InvalidPrice with all that is wrong."""
    problems: dict[str, str] = {}
    model = model.strip()
    if not _NAME.fullmatch(model):
        problems["model"] = "Give the name of a model as the API says it, such as claude-sonnet-5-5."
    if context not in CONTEXTS:
        problems["context"] = f"Choose a context: {', '.join(CONTEXTS.values())}."
    values: dict[str, Any] = {"model": model, "context": context}
    for name in PRICES:
        values[name] = _price(name, prices.get(name, ""), problems)
    for name, text in (("valid_from", valid_from), ("valid_to", valid_to)):
        values[name] = read_moment(text) if text.strip() else None
        if text.strip() and values[name] is None:
            problems[name] = f"{quoted(text)} is no time. Write it like 2026-11-22 14:30, in UTC."
    since, until = values["valid_from"], values["valid_to"]
    if since is not None and until is not None and until <= since:
        problems["valid_to"] = "It has to end after it begins."
    if not reason.strip() or len(reason.strip()) > LONGEST_REASON:
        problems["reason"] = _say_why()
    if problems:
        raise InvalidPrice(problems)
    return values


def _price(name: str, text: str, problems: dict[str, str]) -> Decimal:
    amount = read_amount(text.strip().removeprefix("$"))
    if amount is None or amount > LARGEST or amount % SMALLEST:
        said = f"{quoted(text)} cannot be a price" if text.strip() else "A price is missing"
        problems[name] = f"{said}: give the USD for {PRICE_WORDS[name]}, such as 2.50, with up to 4 decimals."
        return Decimal(0)
    return amount


def _checked_reason(reason: str) -> None:
    if not reason.strip() or len(reason.strip()) > LONGEST_REASON:
        raise InvalidPrice({"reason": _say_why()})


def _say_why() -> str:
    return f"Say in at most {LONGEST_REASON} characters where this comes from; it stands in the history."
