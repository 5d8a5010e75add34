"""May this call run? A pure function of the call and of the rules in force.

The rules below are the floor: they are part of the program. People add rules and grants of their own, see
`Policy`. Who wins:

1. A code rule that denies. Nothing that people write can allow what the code denies.
2. A rule of people that denies.
3. Among the rules of people that ask or allow: the most specific one (`StoredRule.specificity`); of two that
   are equally specific the stricter one, which is the one that asks, of the most people; then the older one.
4. Where none of them matches: the code rule.
5. Where the answer is then to ask, and a grant matches: the call runs without asking, for one use of it.

Nobody is asked about a read: rules that ask do not apply to them.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from tools.base import Effect, Tool
from tools.conditions import EXACT, Condition, effective

DECIDE_WITHIN_SECONDS = 900
EXECUTE_WITHIN_SECONDS = 600
ENVIRONMENTS = frozenset({"production", "staging"})
Kind = Literal["allow", "ask", "deny"]


@dataclass(frozen=True)
class Ask:
    """How people are asked: how many, who, how fast, and how long a yes may be taken back.

    `roles` are names of groups, any of them will do; none: whoever may decide. `self_approval`: whether the
    person who started the run may decide.
    """

    quorum: int = 1
    roles: tuple[str, ...] = ()
    self_approval: bool = True
    decide_within_seconds: int = DECIDE_WITHIN_SECONDS
    execute_within_seconds: int = EXECUTE_WITHIN_SECONDS
    cooling_off_seconds: int = 0


@dataclass(frozen=True)
class Verdict:
    """allow: run it. ask: run it only after people said yes, as `ask` says. deny: never run it.

    `source` says who wrote the rule; `change` is the number of the version of a rule or grant of people and
    `rule_digest` stands for what it says, `grant` is the grant of which the start costs a use. `version` is
    that of all rules together.
    """

    kind: Kind
    rule: str
    reason: str
    ask: Ask = Ask()
    source: Literal["code", "rule", "grant"] = "code"
    change: int | None = None
    grant: int | None = None
    rule_digest: str = ""
    version: str = ""

    @property
    def quorum(self) -> int:
        return self.ask.quorum

    @property
    def decide_within_seconds(self) -> int:
        return self.ask.decide_within_seconds

    @property
    def execute_within_seconds(self) -> int:
        return self.ask.execute_within_seconds


@dataclass(frozen=True)
class Rule:
    """A named reason for a verdict, for the calls that `applies` to."""

    name: str
    kind: Kind
    reason: str
    applies: Callable[[Tool, dict[str, Any], str, str], bool]


@dataclass(frozen=True)
class StoredRule:
    """A rule or a grant that people wrote. An empty tool, effect, agent or environment means any."""

    key: int
    change: int
    name: str
    kind: Literal["allow", "ask", "deny", "grant"]
    reason: str
    tool: str = ""
    effect: str = ""
    agent: str = ""
    environment: str = ""
    conditions: tuple[Condition, ...] = ()
    ask: Ask = Ask()
    digest: str = ""  # of its name and what it says

    def why_not(self, tool: Tool, arguments: Mapping[str, Any], agent: str, environment: str) -> str:
        """Why it does not match this call, in a few words; "" when it does."""
        if self.tool and self.tool != tool.name:
            return f"it is for {self.tool}"
        if self.effect and self.effect != tool.effect:
            return f"it is for tools whose effect is {self.effect}"
        if self.agent and self.agent != agent:
            return f"it is for the agent {self.agent}"
        if self.environment and self.environment != environment:
            return f"it is for {self.environment}"
        if self.kind == "ask" and tool.effect == "read":
            return "nobody is asked about a read"
        failed = next((one for one in self.conditions if not one.holds(arguments)), None)
        return f"not so: {failed}" if failed else ""

    @property
    def specificity(self) -> tuple[int, ...]:
        """More of the first that differs is more specific: the tool, exact arguments, other comparisons of
        arguments, the agent, the environment, the effect."""
        exact = sum(one.operator in EXACT for one in self.conditions)
        others = len(self.conditions) - exact
        named = (bool(self.agent), bool(self.environment), bool(self.effect))
        return (int(bool(self.tool)), exact, others, *map(int, named))

    @property
    def verdict(self) -> Verdict:
        """What it says, without the version of the whole."""
        is_grant = self.kind == "grant"
        return Verdict(
            "allow" if self.kind == "grant" else self.kind,
            self.name,
            self.reason,
            self.ask,
            source="grant" if is_grant else "rule",
            change=self.change,
            grant=self.key if is_grant else None,
            rule_digest=self.digest,
        )


@dataclass(frozen=True)
class Policy:
    """The rules in force beside those in code: what people wrote and enabled, and the grants with uses left.

    `version` is a digest of all of it and of the rules in code.
    """

    rules: tuple[StoredRule, ...] = ()
    version: str = ""

    def with_rule(self, rule: StoredRule) -> Policy:
        """The same with this rule, instead of an earlier version of it."""
        return replace(self, rules=(*self.without(rule.key).rules, rule))

    def without(self, key: int) -> Policy:
        """The same without this rule."""
        return replace(self, rules=tuple(rule for rule in self.rules if rule.key != key))

    @cached_property
    def in_order(self) -> tuple[StoredRule, ...]:
        """Strongest first, as they are tried."""
        return tuple(sorted(self.rules, key=_strength))


RULES: tuple[Rule, ...] = (
    Rule(
        "reads-are-free",
        "allow",
        "It only reads.",
        lambda tool, arguments, agent, environment: tool.effect == "read",
    ),
    Rule(
        "agent-has-a-name",
        "deny",
        "A change needs to be traceable to an agent, and this call names none.",
        lambda tool, arguments, agent, environment: not agent.strip(),
    ),
    Rule(
        "known-environments-only",
        "deny",
        f"Changes are allowed only in {' and '.join(sorted(ENVIRONMENTS))}.",
        lambda tool, arguments, agent, environment: environment not in ENVIRONMENTS,
    ),
    Rule(
        "never-scale-to-zero",
        "deny",
        "Scaling to zero takes the service down; no agent may do that.",
        lambda tool, arguments, agent, environment: tool.name == "scale_service" and _is_zero(arguments),
    ),
    Rule(
        "tickets-are-harmless",
        "allow",
        "It writes a record that can be corrected, once per incident.",
        lambda tool, arguments, agent, environment: tool.effect == "write",
    ),
    Rule(
        "remediation-needs-a-person",
        "ask",
        "It changes what runs, so a person decides.",
        lambda tool, arguments, agent, environment: tool.effect == "destructive",
    ),
)
EFFECTS: tuple[Effect, ...] = ("read", "write", "destructive")


def decide(
    tool: Tool, arguments: dict[str, Any], agent: str, environment: str, policy: Policy | None = None
) -> Verdict:
    """The verdict on this call under the rules in code and these; the top of this module says who wins."""
    policy = policy or CODE_ONLY
    floor = of_code(tool, arguments, agent, environment)
    whole = effective(tool, arguments) if policy.rules else arguments
    matching = [rule for rule in policy.in_order if not rule.why_not(tool, whole, agent, environment)]
    winner = floor
    rules = [rule for rule in matching if rule.kind != "grant"]
    if floor.kind != "deny" and rules:
        winner = rules[0].verdict
    grants = [rule for rule in matching if rule.kind == "grant"]
    if winner.kind == "ask" and grants:
        winner = grants[0].verdict
    return replace(winner, version=policy.version)


def of_code(tool: Tool, arguments: dict[str, Any], agent: str, environment: str) -> Verdict:
    """The verdict of the first code rule that applies; a call that none knows is denied."""
    for rule in RULES:
        if rule.applies(tool, arguments, agent, environment):
            return Verdict(rule.kind, rule.name, rule.reason)
    return Verdict("deny", "unknown-effect", f"{tool.name} has an effect that no rule knows.")


def what_became_stricter(asked: Ask, now: Verdict) -> str:
    """What this verdict demands that people were not asked for, as a sentence; "" when nothing."""
    if now.kind == "deny":
        return f"The rule {now.rule} denies it now: {now.reason}"
    if now.kind == "allow":
        return ""
    if now.ask.quorum > asked.quorum:
        return f"The rule {now.rule} asks for {now.ask.quorum} people now, not {asked.quorum}."
    if now.ask.roles and not (asked.roles and set(asked.roles) <= set(now.ask.roles)):
        return f"The rule {now.rule} leaves the decision to {' or '.join(now.ask.roles)} now."
    if asked.self_approval and not now.ask.self_approval:
        return f"Under the rule {now.rule} whoever started the run may not decide any more."
    return ""


def _strength(rule: StoredRule) -> tuple[Any, ...]:
    kind = {"deny": 0, "ask": 1, "allow": 1, "grant": 2}[rule.kind]
    least = tuple(-count for count in rule.specificity)
    asks = rule.kind == "ask"
    return (kind, least, not asks, -rule.ask.quorum if asks else 0, rule.key)


def _is_zero(arguments: dict[str, Any]) -> bool:
    replicas = arguments.get("replicas")
    return isinstance(replicas, (int, float)) and replicas < 1


# Any change of this module counts as other rules: it may decide differently.
CODE_VERSION = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()


def version_of(rules_digest: str) -> str:
    """The version of the rules in code together with rules of people that have this digest ("": none)."""
    return hashlib.sha256(f"policy-1 {CODE_VERSION} {rules_digest}".encode()).hexdigest()


CODE_ONLY = Policy((), version_of(""))
