"""Rules and grants that people write: every version, what it was tested against, and uses of grants."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, NoReturn

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from runs.models.run import Run
from runs.models.step import Step
from tools.conditions import Condition
from tools.policy import Ask, StoredRule

HISTORY_CHUNK = 500  # changes read at once
CHANGED_NEVER = "This row is part of the record: it is added once and never changed."


class RuleKind(models.TextChoices):
    ALLOW = "allow", "Allow"
    ASK = "ask", "Ask people"
    DENY = "deny", "Deny"
    GRANT = "grant", "Grant"


LETS_RUN = frozenset({RuleKind.ALLOW, RuleKind.GRANT})


class WhatChanged(models.TextChoices):
    DRAFTED = "drafted", "Drafted"
    ENABLED = "enabled", "Enabled"
    DISABLED = "disabled", "Switched off"
    DISCARDED = "discarded", "Draft discarded"


class Recorded(models.Model):
    """A row that is only ever added."""

    class Meta:
        abstract = True

    def save(self, **options: Any) -> None:
        """Store it, once."""
        if not self._state.adding:
            raise ValueError(CHANGED_NEVER)
        super().save(**options)

    def delete(self, using: Any = None, keep_parents: bool = False) -> NoReturn:
        """Never: what was recorded stays."""
        raise ValueError(CHANGED_NEVER)


class PolicyRule(models.Model):
    """A rule or a grant by its name: which version of it holds, which one is a draft, and uses of a grant."""

    name = models.CharField(max_length=80, unique=True)
    is_grant = models.BooleanField(default=False)
    active = models.ForeignKey(
        "PolicyChange", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    draft = models.ForeignKey(
        "PolicyChange", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    # Of a grant, from when it is given: how often it may be used, was used, and until when.
    uses = models.PositiveIntegerField(default=0)
    used = models.PositiveIntegerField(default=0)
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(condition=Q(used__lte=F("uses")), name="grant_never_used_up_twice"),
        ]
        permissions = [("policy", "Can change rules and give grants")]

    def __str__(self) -> str:
        return f"{'grant' if self.is_grant else 'rule'} {self.name}"


class PolicyChange(Recorded):
    """One version of a rule: what it says, who changed it to that, when and why."""

    rule = models.ForeignKey(PolicyRule, on_delete=models.PROTECT, related_name="changes")
    number = models.PositiveIntegerField()
    what = models.CharField(max_length=12, choices=WhatChanged)
    content = models.TextField()  # canonical JSON, see `runs.actions.rule_contents`
    digest = models.CharField(max_length=64)  # of name and content
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="policy_changes")
    at = models.DateTimeField(default=timezone.now)
    why = models.TextField()
    backtest = models.ForeignKey(
        "PolicyBacktest", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    # One chain over the changes of all rules, like that of the events of a run.
    previous_hash = models.CharField(max_length=64, blank=True, default="")
    hash = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["rule", "number"], name="policy_change_number_once"),
            models.CheckConstraint(condition=Q(what__in=WhatChanged.values), name="policy_change_known"),
        ]

    def __str__(self) -> str:
        return f"version {self.number} of rule {self.rule_id}: {self.what}"

    @property
    def values(self) -> dict[str, Any]:
        """What it says."""
        loaded: dict[str, Any] = json.loads(self.content)
        return loaded

    def stored(self, name: str) -> StoredRule:
        """The rule of this name as policy reads it."""
        return stored_rule(self.rule_id, self.pk, name, self.content)


class PolicyBacktest(Recorded):
    """What a draft would have changed about recorded decisions. It is about exactly this digest."""

    rule = models.ForeignKey(PolicyRule, on_delete=models.PROTECT, related_name="backtests")
    digest = models.CharField(max_length=64)
    policy_version = models.CharField(max_length=64)  # of the rules in force beside it
    days = models.PositiveIntegerField()
    looked_at = models.PositiveIntegerField()  # decisions; the newest ones when there were more
    was_capped = models.BooleanField(default=False)
    not_judged = models.PositiveIntegerField(default=0)  # their tool exists no more
    let_through = models.PositiveIntegerField(default=0)
    overridden = models.PositiveIntegerField(default=0)  # of them, rejected by a person
    # JSON: approvals by what would have become of them, newest first, bounded
    found = models.TextField()
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="policy_backtests"
    )
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"back-test of rule {self.rule_id}: {self.let_through} let through"

    @property
    def values(self) -> dict[str, Any]:
        """What was found: {ended: {state: count}, against: [keys], others: [keys]}."""
        loaded: dict[str, Any] = json.loads(self.found)
        return loaded


class GrantUse(Recorded):
    """One START that a grant allowed."""

    grant = models.ForeignKey(PolicyRule, on_delete=models.PROTECT, related_name="grant_uses")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="grant_uses")
    step = models.OneToOneField(Step, on_delete=models.CASCADE, related_name="grant_use")
    number = models.PositiveIntegerField()
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["grant", "number"], name="grant_use_once"),
        ]

    def __str__(self) -> str:
        return f"use {self.number} of grant {self.grant_id}"


class PolicyHead(models.Model):
    """The rules of people that are in force, as one text that is read at once. Derived from the rules.

    There is one row. Whoever changes a rule locks it; a start of a call with an effect holds it meanwhile.
    """

    digest = models.CharField(max_length=64)  # SHA-256 of `rules`
    rules = models.TextField()  # JSON: [[key, change, name, content], …]

    def __str__(self) -> str:
        return f"policy {self.digest[:8]}"


def rules_by_history() -> tuple[dict[int, PolicyChange], list[str]]:
    """What each rule that decides says by the history of all changes, and where that history is broken.

    Every change gives its hash and continues the one before it, and every version follows the last one.
    """
    problems: list[str] = []
    tip = ""
    said: dict[int, PolicyChange] = {}
    numbers: dict[int, int] = {}
    changes = PolicyChange.objects.select_related("rule", "by", "backtest").order_by("pk")
    for change in changes.iterator(chunk_size=HISTORY_CHUNK):
        name = f"version {change.number} of {change.rule.name}"
        problems.extend(f"{name} {problem}" for problem in _broken(change, tip, numbers))
        tip, numbers[change.rule_id] = change.hash, change.number
        if change.what == WhatChanged.ENABLED:
            said[change.rule_id] = change
        elif change.what == WhatChanged.DISABLED:
            said.pop(change.rule_id, None)
    return said, problems


def _broken(change: PolicyChange, tip: str, numbers: dict[int, int]) -> Iterator[str]:
    """What is wrong with this change, which should continue the one whose hash is `tip`."""
    last = numbers.get(change.rule_id, 0)
    if change.number != last + 1:
        yield f"does not follow version {last}"
    if change.previous_hash != tip:
        yield "does not follow the change before it: one is missing or was moved"
    if change_hash(change, change.rule.name, change.by.get_username()) != change.hash:
        yield "was changed: it does not give its hash"
    if rule_digest(change.rule.name, change.content) != change.digest:
        yield "does not give the digest of what it says"
    if change.what == WhatChanged.ENABLED and _kind(change) in LETS_RUN:
        tested = change.backtest
        if tested is None or (tested.digest, tested.rule_id) != (change.digest, change.rule_id):
            yield "lets calls run without a back-test of exactly what it says"
    elif change.backtest_id is not None:
        yield "names a back-test that it did not need"


def _kind(change: PolicyChange) -> str:
    try:
        return str(change.values.get("kind"))
    except (ValueError, AttributeError):
        return ""  # its hash says that it was changed


def change_hash(change: PolicyChange, name: str, by: str) -> str:
    """SHA-256 of this change of the rule of this name by this person, and of all changes before it."""
    said = (name, change.number, change.what, change.content, by, change.at.isoformat(), change.why)
    text = json.dumps(["policy-change-1", change.previous_hash, *said], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def rule_digest(name: str, content: str) -> str:
    """SHA-256 that stands for what a rule of this name says."""
    return hashlib.sha256(json.dumps(["policy-rule-1", name, content]).encode()).hexdigest()


def stored_rule(key: int, change: int, name: str, content: str) -> StoredRule:
    """A rule as policy reads it, from the text of its content."""
    values: dict[str, Any] = json.loads(content)
    names = Ask.__dataclass_fields__.keys() & values.keys()
    asked = {name: values[name] for name in names} | {"roles": tuple(values.get("roles", ()))}
    return StoredRule(
        key=key,
        change=change,
        name=name,
        kind=values["kind"],
        reason=values["reason"],
        **{place: values.get(place, "") for place in ("tool", "effect", "agent", "environment")},
        conditions=tuple(Condition(*one) for one in values.get("conditions", ())),
        ask=Ask(**asked),
        digest=rule_digest(name, content),
    )
