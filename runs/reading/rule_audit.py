"""Whether the record of rules is whole: the chain over all changes, and what is in force by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runs.models import PolicyChange, PolicyHead, PolicyRule, RuleKind, WhatChanged
from runs.models.in_force import HEAD
from runs.models.policy import rules_by_history


@dataclass(frozen=True)
class RuleAudit:
    """How many changes of rules there are, the end of their chain, and what is wrong, in sentences."""

    changes: int
    head: str
    problems: tuple[str, ...]


def audit_rules() -> RuleAudit:
    """Check every change of every rule, and that what is in force is what the changes say."""
    said, problems = rules_by_history()
    last = PolicyChange.objects.order_by("pk").last()
    count, tip = PolicyChange.objects.count(), last.hash if last else ""
    try:
        problems.extend(_not_as_recorded(said))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problems.append(f"what is in force cannot be read ({type(error).__name__}: {str(error)[:100]})")
    return RuleAudit(count, tip, tuple(problems))


def _not_as_recorded(said: dict[int, PolicyChange]) -> Iterator[str]:
    """Where the rules that decide are not those of their history."""
    for rule in PolicyRule.objects.order_by("pk"):
        recorded = said.get(rule.pk)
        if rule.active_id != (recorded.pk if recorded else None):
            yield f"{rule.name} is not in force as its history says"
        yield from _rule_fits(rule, recorded)
    head = PolicyHead.objects.filter(pk=HEAD).first()
    if head is None:
        return
    rows: list[list[Any]] = json.loads(head.rules)
    if head.digest != (hashlib.sha256(head.rules.encode()).hexdigest() if rows else ""):
        yield "the rules in force do not give their digest"
    for key, change, name, content in rows:
        recorded = said.get(key)
        if recorded is None or (recorded.pk, recorded.content) != (change, content):
            yield f"{name} decides otherwise than its history says"
    missing = said.keys() - {row[0] for row in rows}
    for recorded in (said[key] for key in sorted(missing)):
        if not recorded.rule.is_grant:  # grants that ran out are left out
            yield f"{recorded.rule.name} is enabled and does not decide"


def _is_as_given(rule: PolicyRule, at: datetime, given: dict[str, Any]) -> bool:
    until = at + timedelta(seconds=given["seconds"])
    return rule.uses == given["uses"] and rule.expires_at is not None and rule.expires_at <= until


def _rule_fits(rule: PolicyRule, active: PolicyChange | None) -> Iterator[str]:
    """What its row says beside its name is what its changes say."""
    last = rule.changes.order_by("-number").first()
    draft = last.pk if last is not None and last.what == WhatChanged.DRAFTED else None
    if rule.draft_id != draft:
        yield f"{rule.name} has another draft than its history says"
    if last is not None and rule.is_grant != (last.values["kind"] == RuleKind.GRANT):
        yield f"{rule.name} is {'a grant' if rule.is_grant else 'a rule'}, its history says otherwise"
    if rule.is_grant and rule.used != rule.grant_uses.count():
        yield f"{rule.name} counts {rule.used} uses, there are {rule.grant_uses.count()}"
    given = active.values if active is not None and rule.is_grant else {}
    if active is not None and given and not _is_as_given(rule, active.at, given):
        yield f"{rule.name} has other uses or another time than were given"
    if not rule.is_grant and (rule.uses, rule.used, rule.expires_at) != (0, 0, None):
        yield f"{rule.name} is no grant, and has uses or a time"
