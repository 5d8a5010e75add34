"""Trying a call on the rules in force: which rule would decide, and why not another one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from runs.reading import rule_words
from tools import boundary, conditions, policy
from tools.policy import Policy, StoredRule, Verdict
from tools.registry import TOOLS

MOST_CHARACTERS = 20_000


@dataclass(frozen=True)
class Considered:
    """One rule that was looked at, strongest first, and what came of it."""

    name: str
    kind: str
    key: int | None  # None: a rule in code
    decides: bool
    why: str


@dataclass(frozen=True)
class Tried:
    """What the rules say of a call. `problem`: why nothing could be said; `note`: what else stops it."""

    problem: str = ""
    verdict: Verdict | None = None
    says: str = ""
    considered: tuple[Considered, ...] = ()
    note: str = ""


def try_call(policy_now: Policy, *, tool: str, arguments: str, agent: str, environment: str) -> Tried:
    """Which rule decides on this call, whose arguments are JSON text, and why. Nothing is run or stored."""
    called = TOOLS.get(tool)
    if called is None:
        return Tried(f"There is no tool {tool!r}. Choose one of {', '.join(sorted(TOOLS))}.")
    if len(arguments) > MOST_CHARACTERS:
        return Tried(f"At most {MOST_CHARACTERS:,} characters of arguments are taken.")
    try:
        loaded = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        return Tried(f"The arguments are no JSON: {error}.")
    if not isinstance(loaded, dict):
        return Tried('The arguments are one JSON object, such as {"service_name": "api"}.')
    verdict = policy.decide(called, loaded, agent, environment, policy_now)
    misfit = boundary.invalid_arguments(called, loaded)
    return Tried(
        verdict=verdict,
        says=rule_words.demand(verdict.ask) if verdict.kind == "ask" else "",
        considered=tuple(_considered(policy_now, verdict, called, loaded, agent, environment)),
        note=f"The call would be refused before any rule is asked: {misfit}" if misfit else "",
    )


def _considered(
    policy_now: Policy, verdict: Verdict, called: Any, loaded: dict[str, Any], agent: str, environment: str
) -> list[Considered]:
    whole = conditions.effective(called, loaded)
    floor = policy.of_code(called, loaded, agent, environment)
    found = []
    if floor.kind == "deny":
        found.append(_floor(floor, verdict))
    for rule in policy_now.in_order:
        why_not = rule.why_not(called, whole, agent, environment)
        decides = verdict.change == rule.change
        found.append(
            Considered(rule.name, rule.kind, rule.key, decides, why_not or _why(rule, verdict, decides))
        )
    if floor.kind != "deny":
        found.append(_floor(floor, verdict))
    return found


def _floor(floor: Verdict, verdict: Verdict) -> Considered:
    decides = verdict.source == "code"
    why = "it matches and decides" if decides else f"it matches, and {verdict.rule} goes before it"
    return Considered(floor.rule, floor.kind, None, decides, why)


def _why(rule: StoredRule, verdict: Verdict, decides: bool) -> str:
    if decides:
        return "it matches and decides"
    if rule.kind == "grant" and verdict.kind != "deny" and verdict.grant is None:
        return "it matches, and is not needed: nobody would be asked"
    if verdict.kind == "deny":
        return f"it matches, and {verdict.rule} denies it first"
    if verdict.grant is not None:
        return f"it matches, and the grant {verdict.rule} answers it"
    return f"it matches, and {verdict.rule} is more specific or stricter"
