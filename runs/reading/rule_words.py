"""Rules as people read them: whom they are for, what they demand, and how two versions differ. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runs.reading.words import span
from tools.conditions import Condition
from tools.policy import Ask, StoredRule

NUMBERS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LABELS = {
    "kind": "What it does",
    "tool": "Tool",
    "effect": "Effect",
    "agent": "Agent",
    "environment": "Environment",
    "conditions": "Arguments",
    "reason": "Reason",
    "quorum": "People needed",
    "roles": "Who may decide",
    "self_approval": "Whoever started the run may decide",
    "decide_within_seconds": "Time to decide",
    "execute_within_seconds": "Time to start",
    "cooling_off_seconds": "Cooling-off",
    "uses": "Uses",
    "seconds": "For",
}
SAYS_NOTHING = frozenset({"any", "none"})
KINDS = {"allow": "Allow", "ask": "Ask people", "deny": "Deny", "grant": "Grant"}


@dataclass(frozen=True)
class Difference:
    """One field of a rule before and after a change; a side that has none is empty."""

    label: str
    before: str
    after: str


def scope(rule: StoredRule) -> str:
    """Which calls it is for, without its conditions: "scale_service by incident in production"."""
    what = rule.tool or (f"every {rule.effect} tool" if rule.effect else "every tool")
    by = f" by {rule.agent}" if rule.agent else ""
    return f"{what}{by}" + (f" in {rule.environment}" if rule.environment else "")


def people(quorum: int, roles: Sequence[str]) -> str:
    """Who decides: "two of: On-call or Database", "one person"."""
    number = NUMBERS[quorum] if quorum < len(NUMBERS) else str(quorum)
    if roles:
        return f"{number} of: {' or '.join(roles)}"
    return f"{number} person" if quorum == 1 else f"{number} people"


def demand(ask: Ask) -> str:
    """How people are asked, in one sentence."""
    parts = [f"decided by {people(ask.quorum, ask.roles)}"]
    if not ask.self_approval:
        parts.append("not by whoever started the run")
    parts.append(f"{span(ask.decide_within_seconds)} to decide, {span(ask.execute_within_seconds)} to start")
    if ask.cooling_off_seconds:
        parts.append(f"starts {span(ask.cooling_off_seconds)} after the decision")
    return ", ".join(parts)


def says(rule: StoredRule, values: dict[str, Any]) -> str:
    """What it does, in a few words."""
    match rule.kind:
        case "allow":
            return "runs without asking"
        case "deny":
            return "never runs"
        case "grant":
            return f"runs without asking, {values['uses']} times within {span(values['seconds'])}"
    return demand(rule.ask)


def differences(before: dict[str, Any] | None, after: dict[str, Any]) -> tuple[Difference, ...]:
    """What a change of a rule changed, field by field; without a version before, what it says at all."""
    old = before or {}
    found = []
    for field, label in LABELS.items():
        was, now = _text(field, old.get(field)), _text(field, after.get(field))
        if was != now and (before is not None or now not in SAYS_NOTHING):
            found.append(Difference(label, was, now))
    return tuple(found)


def _text(field: str, value: Any) -> str:
    if value is None:
        return ""
    if field == "conditions":
        return "\n".join(str(Condition(*one)) for one in value) or ("any" if value == [] else "")
    if field == "kind":
        return KINDS.get(str(value), str(value))
    if field == "roles":
        return ", ".join(value) or "whoever has the permission decide"
    if field == "self_approval":
        return "yes" if value else "no"
    if field.endswith("seconds"):
        return span(value) if value else "none"
    if field in {"tool", "effect", "agent", "environment"}:
        return str(value or "any")
    return str(value)
