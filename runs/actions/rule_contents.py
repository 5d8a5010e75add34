"""What people write into the form of a rule, checked: the exact content that is stored and hashed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.contrib.auth.models import Group

from runs import agents
from runs.actions.errors import ActionError
from runs.models import RuleKind
from tools import conditions, policy
from tools.conditions import BadCondition
from tools.registry import TOOLS

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LONGEST_NAME = 80
LONGEST_REASON = 500
LONGEST_WHY = 2_000
MOST_PEOPLE = 20
SPAN = re.compile(r"(\d{1,9})\s*(s|sec|seconds?|min|minutes?|m|h|hours?|d|days?)?")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SPANS = {  # seconds: least and most
    "decide_within_seconds": (30, 14 * 86400),
    "execute_within_seconds": (30, 7 * 86400),
    "cooling_off_seconds": (0, 3600),
    "seconds": (60, 30 * 86400),
}


@dataclass(frozen=True)
class WantedRule:
    """A rule as it was written, as texts. Spans are such as "15 min"; a plain number is seconds."""

    name: str = ""
    kind: str = RuleKind.ASK
    reason: str = ""
    tool: str = ""
    effect: str = ""
    agent: str = ""
    environment: str = ""
    conditions: str = ""
    quorum: str = "1"
    roles: Sequence[str] = ()
    self_approval: bool = False
    decide_within_seconds: str = "15 min"
    execute_within_seconds: str = "10 min"
    cooling_off_seconds: str = "0"
    uses: str = "5"
    seconds: str = "1 h"


class InvalidRule(ActionError):
    """What was written cannot be a rule; `problems` says by field what to change."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__(" ".join(problems.values()))
        self.problems = problems


def checked_content(wanted: WantedRule) -> str:
    """The content of this rule as canonical JSON text. Raises InvalidRule with every problem there is."""
    checks: dict[str, Callable[[WantedRule], Any]] = {
        "kind": _kind,
        "reason": _reason,
        "tool": _tool,
        "effect": _effect,
        "agent": _agent,
        "environment": _environment,
        "conditions": _conditions,
    }
    if wanted.kind == RuleKind.ASK:
        checks |= {"quorum": _quorum, "roles": _roles, "self_approval": lambda one: bool(one.self_approval)}
        spans = ["decide_within_seconds", "execute_within_seconds", "cooling_off_seconds"]
    else:
        spans = ["seconds"] if wanted.kind == RuleKind.GRANT else []
    if wanted.kind == RuleKind.GRANT:
        checks["uses"] = lambda one: _whole(one.uses, 1, 1000, "uses")
    checks |= {name: partial(_span_of, name) for name in spans}
    values, problems = _checked(wanted, checks)
    if problems:
        raise InvalidRule(problems)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def checked_name(name: str) -> str:
    """The name, if it can be one. Raises InvalidRule."""
    name = name.strip()
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        sentence = "A name is small letters, digits and single hyphens, such as small-scaling-is-fine."
        raise InvalidRule({"name": sentence})
    if any(rule.name == name for rule in policy.RULES):
        raise InvalidRule({"name": f"A rule in code is named {name}. Choose another name."})
    return name


def checked_why(why: str) -> str:
    """The reason of a change. Raises InvalidRule."""
    why = _storable(why).strip()
    if not why:
        raise InvalidRule({"why": "Say why you change it: the history keeps it."})
    if len(why) > LONGEST_WHY:
        raise InvalidRule({"why": f"At most {LONGEST_WHY:,} characters are kept; there are {len(why):,}."})
    return why


def written(values: dict[str, Any], name: str) -> WantedRule:
    """The rule with this content as it is written in the form."""
    lines = "\n".join(str(conditions.Condition(*one)) for one in values["conditions"])
    fields: dict[str, Any] = {"name": name, "conditions": lines}
    fields |= {key: span_text(values[key]) for key in SPANS if key in values}
    fields |= {key: str(values[key]) for key in ("quorum", "uses") if key in values}
    kept = ("kind", "reason", "tool", "effect", "agent", "environment", "roles", "self_approval")
    return WantedRule(**fields, **{key: values[key] for key in kept if key in values})


def _storable(text: str) -> str:
    """Without the one character that PostgreSQL cannot keep in a text."""
    return text.replace("\0", "")


def span_text(seconds: int) -> str:
    """A span as people write it: 900 is "15 min"."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _checked(
    wanted: WantedRule, checks: dict[str, Callable[[WantedRule], Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field, check in checks.items():
        try:
            values[field] = check(wanted)
        except ValueError as error:
            problems[field] = str(error)
    return values, problems


def _kind(wanted: WantedRule) -> str:
    if wanted.kind not in RuleKind.values:
        raise ValueError("A rule allows, asks people or denies; a grant allows for some uses.")
    return wanted.kind


def _reason(wanted: WantedRule) -> str:
    reason = " ".join(_storable(wanted.reason).split())
    if not reason:
        raise ValueError("Give the reason in a sentence: it stands on the card, and the agent is told it.")
    if len(reason) > LONGEST_REASON:
        raise ValueError(f"At most {LONGEST_REASON} characters; there are {len(reason)}.")
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."


def _tool(wanted: WantedRule) -> str:
    if wanted.tool and wanted.tool not in TOOLS:
        raise ValueError(f"There is no tool {wanted.tool!r}. Known: {', '.join(sorted(TOOLS))}.")
    if wanted.kind == RuleKind.GRANT and not wanted.tool:
        raise ValueError("A grant is for one tool: choose it.")
    if wanted.kind == RuleKind.ASK and wanted.tool and TOOLS[wanted.tool].effect == "read":
        raise ValueError("Nobody is asked about a read. A rule can deny it, or let it be.")
    return wanted.tool


def _effect(wanted: WantedRule) -> str:
    effect = "" if wanted.tool else wanted.effect  # a tool has only one
    if effect and effect not in policy.EFFECTS:
        raise ValueError(f"An effect is {', '.join(policy.EFFECTS)}.")
    if effect == "read" and wanted.kind == RuleKind.ASK:
        raise ValueError("Nobody is asked about a read. A rule can deny it, or let it be.")
    if not effect and not wanted.tool and wanted.kind == RuleKind.ALLOW:
        raise ValueError("Choose a tool or an effect: a rule that allows everything is refused.")
    return effect


def _agent(wanted: WantedRule) -> str:
    if wanted.agent and wanted.agent not in agents.installed():
        raise ValueError(f"There is no agent {wanted.agent!r}. Installed: {', '.join(agents.installed())}.")
    return wanted.agent


def _environment(wanted: WantedRule) -> str:
    if wanted.environment and wanted.environment not in policy.ENVIRONMENTS:
        raise ValueError(f"Environments are {' and '.join(sorted(policy.ENVIRONMENTS))}.")
    return wanted.environment


def _conditions(wanted: WantedRule) -> list[list[str]]:
    try:
        parsed = conditions.parse(wanted.conditions)
    except BadCondition as error:
        raise ValueError(str(error)) from error
    named = TOOLS.get(wanted.tool)
    offered = (
        [named] if named else [t for t in TOOLS.values() if not wanted.effect or t.effect == wanted.effect]
    )
    if sentence := conditions.contradiction(parsed) or conditions.problem(parsed, offered):
        raise ValueError(sentence)
    return [[one.path, one.operator, one.value] for one in parsed]


def _quorum(wanted: WantedRule) -> int:
    return _whole(wanted.quorum, 1, MOST_PEOPLE, "people")


def _roles(wanted: WantedRule) -> list[str]:
    roles = sorted({_storable(role) for role in wanted.roles})
    known = set(Group.objects.filter(name__in=roles).values_list("name", flat=True))
    if missing := [role for role in roles if role not in known]:
        raise ValueError(f"There is no group {', '.join(missing)}. Groups are made by an administrator.")
    return roles


def _whole(text: str, least: int, most: int, of: str) -> int:
    number = int(text) if text.strip().isdecimal() and len(text) < 10 else -1
    if not least <= number <= most:
        raise ValueError(
            f"{text!r} cannot be the number of {of}. Give a whole number from {least} to {most}."
        )
    return number


def _span_of(field: str, wanted: WantedRule) -> int:
    text: str = getattr(wanted, field)
    least, most = SPANS[field]
    match = SPAN.fullmatch(text.strip().lower())
    seconds = int(match[1]) * SECONDS[(match[2] or "s")[0]] if match else -1
    if not least <= seconds <= most:
        raise ValueError(
            f"{text!r} is no time from {span_text(least)} to {span_text(most)}. "
            "Write it as 90 s, 15 min or 2 h."
        )
    return seconds
