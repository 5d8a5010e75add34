"""Whether the record of rules is whole: the chain over all changes, and what is in force by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runs.models import PolicyChange, PolicyHead, PolicyRule
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
    problems.extend(_not_as_recorded(said))
    return RuleAudit(count, tip, tuple(problems))


def _not_as_recorded(said: dict[int, PolicyChange]) -> Iterator[str]:
    """Where the rules that decide are not those of their history."""
    for rule in PolicyRule.objects.order_by("pk"):
        recorded = said.get(rule.pk)
        if rule.active_id != (recorded.pk if recorded else None):
            yield f"{rule.name} is not in force as its history says"
        if rule.is_grant and rule.used != rule.grant_uses.count():
            yield f"{rule.name} counts {rule.used} uses, there are {rule.grant_uses.count()}"
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
