"""Every change of rules, newest first: who, when, why, and what it changed."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Prefetch, QuerySet

from runs.models import PolicyChange, PolicyRule, WhatChanged
from runs.reading import rule_words
from runs.reading.rule_words import Difference


@dataclass(frozen=True)
class ChangeLine:
    """One entry of the history."""

    change: PolicyChange
    rule: PolicyRule
    word: str
    differences: tuple[Difference, ...]


def read_changes(changes: QuerySet[PolicyChange]) -> tuple[ChangeLine, ...]:
    """These changes, newest first, each with what differs from the version before it."""
    earlier = Prefetch("rule__changes", PolicyChange.objects.order_by("number"), to_attr="versions")
    lines = []
    for change in changes.select_related("rule", "by").prefetch_related(earlier):
        versions: list[PolicyChange] = change.rule.versions  # type: ignore[attr-defined]
        before = versions[change.number - 2] if change.number > 1 else None
        differs = change.what == WhatChanged.DRAFTED
        base = _said_before(versions, change) if differs else before
        values = base.values if base else None
        lines.append(
            ChangeLine(
                change=change,
                rule=change.rule,
                word=_word(change),
                differences=rule_words.differences(values, change.values) if differs else (),
            )
        )
    return tuple(lines)


def _said_before(versions: list[PolicyChange], change: PolicyChange) -> PolicyChange | None:
    """What a draft is compared with: what held then, else the draft before it."""
    earlier = [one for one in versions if one.number < change.number]
    enabled: PolicyChange | None = None
    for one in earlier:
        if one.what == WhatChanged.ENABLED:
            enabled = one
        elif one.what == WhatChanged.DISABLED:
            enabled = None
    return enabled or (earlier[-1] if earlier else None)


def _word(change: PolicyChange) -> str:
    if change.rule.is_grant:
        return {"enabled": "Given", "disabled": "Revoked"}.get(
            change.what, str(WhatChanged(change.what).label)
        )
    return str(WhatChanged(change.what).label)
