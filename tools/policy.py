"""May this call run? A pure function: the first rule that applies decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tools.base import Tool

DECIDE_WITHIN_SECONDS = 900
EXECUTE_WITHIN_SECONDS = 600
ENVIRONMENTS = frozenset({"production", "staging"})


@dataclass(frozen=True)
class Verdict:
    """allow: run it. ask: run it only after `quorum` people said yes. deny: never run it."""

    kind: Literal["allow", "ask", "deny"]
    rule: str
    reason: str
    quorum: int = 1
    decide_within_seconds: int = DECIDE_WITHIN_SECONDS
    execute_within_seconds: int = EXECUTE_WITHIN_SECONDS


@dataclass(frozen=True)
class Rule:
    """A named reason for a verdict, for the calls that `applies` to."""

    name: str
    kind: Literal["allow", "ask", "deny"]
    reason: str
    applies: Callable[[Tool, dict[str, Any], str, str], bool]


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


def decide(tool: Tool, arguments: dict[str, Any], agent: str, environment: str) -> Verdict:
    """The verdict of the first rule that applies; a call that no rule knows is denied."""
    for rule in RULES:
        if rule.applies(tool, arguments, agent, environment):
            return Verdict(rule.kind, rule.name, rule.reason)
    return Verdict("deny", "unknown-effect", f"{tool.name} has an effect that no rule knows.")


def _is_zero(arguments: dict[str, Any]) -> bool:
    replicas = arguments.get("replicas")
    return isinstance(replicas, (int, float)) and replicas < 1
