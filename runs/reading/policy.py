"""The page of rules: what is in force in the order in which it is tried, drafts, grants, and every change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group, User
from django.utils import timezone

from runs import agents
from runs.models import Approval, GrantUse, PolicyBacktest, PolicyChange, PolicyRule, WhatChanged
from runs.reading import rule_words
from runs.reading.queue import light_rows
from runs.reading.rule_history import ChangeLine, read_changes
from runs.reading.timescale import percent_text
from tools import policy
from tools.policy import Policy, StoredRule
from tools.registry import TOOLS

MOST_CHANGES = 30
MOST_ENDED = 10
MOST_USES = 100


@dataclass(frozen=True)
class RuleLine:
    """One rule in the list; `rule` is None for those in code, which nobody can change here."""

    name: str
    kind: str
    scope: str
    conditions: tuple[str, ...]
    says: str
    reason: str
    rule: PolicyRule | None = None
    change: PolicyChange | None = None
    warning: str = ""

    @property
    def is_code(self) -> bool:
        return self.rule is None


@dataclass(frozen=True)
class GrantLine:
    """One grant with what is left of it."""

    line: RuleLine
    rule: PolicyRule
    left: int
    used_share: str  # as the width of an SVG rectangle
    state: str  # live, used up, expired, revoked


@dataclass(frozen=True)
class PolicyPage:
    """Everything that the page shows."""

    denials: tuple[RuleLine, ...]
    written: tuple[RuleLine, ...]  # by people, most specific first
    code: tuple[RuleLine, ...]  # what is left to the rules in code
    drafts: tuple[RuleLine, ...]
    grants: tuple[GrantLine, ...]
    changes: tuple[ChangeLine, ...]
    version: str


@dataclass(frozen=True)
class Tested:
    """A back-test with the decisions it found."""

    backtest: PolicyBacktest
    against: tuple[Approval, ...]
    others: tuple[Approval, ...]
    ended: tuple[tuple[str, int], ...]  # how the decisions ended that the draft would have made
    is_current: bool  # it is about the draft as it is now

    @property
    def decided_by_it(self) -> int:
        return sum(count for _, count in self.ended)


@dataclass(frozen=True)
class RulePage:
    """One rule with its versions, its draft, and what came of it."""

    rule: PolicyRule
    active: RuleLine | None
    draft: RuleLine | None
    grant: GrantLine | None
    uses: tuple[GrantUse, ...]
    tested: Tested | None
    changes: tuple[ChangeLine, ...]

    @property
    def lets_run(self) -> bool:
        """Whether the draft needs a back-test."""
        return self.draft is not None and self.draft.kind in {"allow", "grant"}


def read_policy(policy_now: Policy) -> PolicyPage:
    """The whole page: five queries, and one more for each rule that names groups."""
    rules = list(PolicyRule.objects.select_related("active", "draft").order_by("pk"))
    by_key = {rule.pk: rule for rule in rules}
    in_order = [line_of(by_key[one.key], by_key[one.key].active) for one in policy_now.in_order]
    lines = [line for line in in_order if line is not None and line.kind != "grant"]
    code = [_code_line(rule) for rule in policy.RULES]
    return PolicyPage(
        denials=tuple(
            [line for line in code if line.kind == "deny"] + [line for line in lines if line.kind == "deny"]
        ),
        written=tuple(line for line in lines if line.kind != "deny"),
        code=tuple(line for line in code if line.kind != "deny"),
        drafts=tuple(line for rule in rules if (line := line_of(rule, rule.draft)) is not None),
        grants=_grants(rules),
        changes=read_changes(PolicyChange.objects.all()[:MOST_CHANGES]),
        version=policy_now.version,
    )


def read_rule(rule: PolicyRule) -> RulePage:
    """One rule: its versions, the newest back-test of its draft, and the uses of a grant."""
    uses = rule.grant_uses.select_related("run", "step").order_by("-number")[:MOST_USES]
    given = line_of(rule, rule.active or rule.changes.filter(what=WhatChanged.ENABLED).first())
    return RulePage(
        rule=rule,
        active=line_of(rule, rule.active),
        draft=line_of(rule, rule.draft),
        grant=_grant_line(rule, given) if rule.is_grant and rule.expires_at and given else None,
        uses=tuple(uses) if rule.is_grant else (),
        tested=_newest_test(rule),
        changes=read_changes(rule.changes.all()),
    )


def line_of(rule: PolicyRule, change: PolicyChange | None) -> RuleLine | None:
    """This version of a rule as a line of the list."""
    if change is None:
        return None
    stored = change.stored(rule.name)
    return RuleLine(
        name=rule.name,
        kind=stored.kind,
        scope=rule_words.scope(stored),
        conditions=tuple(str(one) for one in stored.conditions),
        says=rule_words.says(stored, change.values),
        reason=stored.reason,
        rule=rule,
        change=change,
        warning=_who_is_missing(stored),
    )


def role_choices() -> list[tuple[str, int]]:
    """Groups by name, with how many of their members may decide."""
    members = User.objects.with_perm("runs.decide", backend="django.contrib.auth.backends.ModelBackend")
    counts: dict[str, int] = {}
    for name in members.filter(is_active=True).values_list("groups__name", "pk").distinct():
        counts[name[0]] = counts.get(name[0], 0) + 1
    return [
        (name, counts.get(name, 0)) for name in Group.objects.order_by("name").values_list("name", flat=True)
    ]


def choices() -> dict[str, Any]:
    """What the form offers."""
    return {
        "tools": [(name, TOOLS[name].effect) for name in sorted(TOOLS)],
        "effects": policy.EFFECTS,
        "agents": list(agents.installed()),
        "environments": sorted(policy.ENVIRONMENTS),
        "roles": role_choices(),
    }


def tools_with_arguments() -> list[tuple[str, list[tuple[str, str]]]]:
    """Each tool with its arguments: their names, and their type or values."""
    return [
        (name, [(argument, _type(node)) for argument, node in tool.input_schema["properties"].items()])
        for name, tool in sorted(TOOLS.items())
    ]


def _type(node: dict[str, Any]) -> str:
    if "enum" in node:
        return " or ".join(f'"{value}"' for value in node["enum"])
    if "properties" in node:
        return f"object with {', '.join(node['properties'])}"
    return str(node.get("type", "any"))


def _code_line(rule: policy.Rule) -> RuleLine:
    asks = {"allow": "runs without asking", "deny": "never runs", "ask": rule_words.demand(policy.Ask())}
    return RuleLine(rule.name, rule.kind, "", (), asks[rule.kind], rule.reason)


def _grants(rules: list[PolicyRule]) -> tuple[GrantLine, ...]:
    """Those that can be used, then the newest that cannot any more."""
    given = [rule for rule in rules if rule.is_grant and rule.expires_at is not None]
    gone = [rule.pk for rule in given if rule.active is None]
    enabled = PolicyChange.objects.filter(rule__in=gone, what=WhatChanged.ENABLED)
    versions = {change.rule_id: change for change in enabled}
    lines = []
    for rule in given:
        line = line_of(rule, rule.active or versions.get(rule.pk))
        if line is not None:
            lines.append(_grant_line(rule, line))
    live = [line for line in lines if line.state == "live"]
    ended = sorted((line for line in lines if line.state != "live"), key=lambda one: -one.rule.pk)
    return (*live, *ended[:MOST_ENDED])


def _grant_line(rule: PolicyRule, line: RuleLine) -> GrantLine:
    now = timezone.now()
    assert rule.expires_at is not None
    state = (
        "used up"
        if rule.used >= rule.uses
        else "revoked"
        if rule.active is None
        else "expired"
        if rule.expires_at <= now
        else "live"
    )
    share = 100 * rule.used / rule.uses if rule.uses else 100.0
    return GrantLine(line, rule, rule.uses - rule.used, percent_text(share), state)


def _newest_test(rule: PolicyRule) -> Tested | None:
    if rule.draft is None:
        return None
    backtest = rule.backtests.select_related("by").first()
    if backtest is None:
        return None
    found = backtest.values
    approvals = {
        one.pk: one for one in light_rows(Approval.objects.filter(pk__in=found["against"] + found["others"]))
    }
    return Tested(
        backtest=backtest,
        against=tuple(approvals[pk] for pk in found["against"] if pk in approvals),
        others=tuple(approvals[pk] for pk in found["others"] if pk in approvals),
        ended=tuple(sorted(found["ended"].items(), key=lambda one: -one[1])),
        is_current=backtest.digest == rule.draft.digest,
    )


def _who_is_missing(rule: StoredRule) -> str:
    """Why nobody could ever decide what it asks, as a sentence; "" when enough people can."""
    if rule.kind != "ask" or (not rule.ask.roles and rule.ask.quorum == 1):
        return ""
    members = User.objects.with_perm("runs.decide", backend="django.contrib.auth.backends.ModelBackend")
    if rule.ask.roles:
        members = members.filter(groups__name__in=rule.ask.roles)
    count = members.distinct().count()
    if count >= rule.ask.quorum:
        return ""
    who = f"in {' or '.join(rule.ask.roles)} " if rule.ask.roles else ""
    have = {0: "nobody", 1: "only 1 person"}.get(count, f"only {count} people")
    return f"It asks for {rule.ask.quorum}, and {have} {who}may decide: every question would expire."
