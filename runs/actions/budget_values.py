"""What people enter about a budget, checked: whose it is, what it limits, when they want to be told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User

from runs import agents
from runs.actions.amounts import WORDS, quoted, read_amount
from runs.actions.errors import ActionError
from runs.actions.tags import checked_tag
from runs.models import AtLimit, Period, Run, Scope
from runs.models.budget import usual_thresholds
from tools.registry import TOOLS

LIMITS = ("tokens", "cost_usd", "tool_calls")
LARGEST = {"tokens": 10**15, "cost_usd": 10**9, "tool_calls": 10**12}
SMALLEST_USD = Decimal("0.0001")
HIGHEST_THRESHOLD = 500
MOST_THRESHOLDS = 8


def checked_key(scope: str, *, agent: str, user: str, tag: str, period: str, tool: str) -> dict[str, Any]:
    """The columns that tell this budget from others. Raises ActionError."""
    if scope not in Scope.values:
        raise ActionError("A budget is for one agent, one user, one tag, or for the installation.")
    if period not in Period.values:
        raise ActionError("The period of a budget is a day, a week or a month.")
    given = {Scope.AGENT: agent, Scope.USER: user, Scope.TAG: tag}
    for kind, name in given.items():
        if (scope == kind) != bool(name):
            raise ActionError(f"Name the {kind} of a budget for one {kind}, and of no other budget.")
    if agent and agent not in agents.installed() and not Run.objects.filter(agent=agent).exists():
        raise ActionError(f"There is no agent {quoted(agent)}. Installed: {', '.join(agents.installed())}.")
    account = User.objects.filter(username=user).first() if user else None
    if user and account is None:
        raise ActionError(f"There is no user {quoted(user)}. Give the name that they sign in with.")
    if tool and tool not in TOOLS:
        raise ActionError(f"There is no tool {quoted(tool)}. Known: {', '.join(sorted(TOOLS))}.")
    kept = checked_tag(tag) if tag else ""
    return {"scope": scope, "agent": agent, "user": account, "tag": kept, "period": period, "tool": tool}


def checked_values(
    limits: Mapping[str, str], *, tool: str, at_limit: str, thresholds: str | None
) -> dict[str, Any]:
    """The columns that can be changed. Raises ActionError."""
    if at_limit not in AtLimit.values:
        raise ActionError("Choose what happens at the limit: wrap up, pause and ask, or only notify.")
    percents = checked_thresholds(thresholds)
    if at_limit == AtLimit.NOTIFY and not percents:
        raise ActionError("A budget that only notifies has to say when. Give a percentage, such as 80.")
    return checked_limits(limits, tool=tool) | {"at_limit": at_limit, "thresholds": percents}


def checked_thresholds(text: str | None) -> list[int]:
    """Percents such as "50, 80, 100" as rising numbers; None: the usual ones. Raises ActionError."""
    if text is None:
        return usual_thresholds()
    words = [word for word in re.split(r"[\s,;%]+", text) if word]
    numbers = {int(word) for word in words if word.isdecimal() and len(word) <= 4}
    if not all(word.isdecimal() and len(word) <= 4 for word in words) or not all(
        1 <= number <= HIGHEST_THRESHOLD for number in numbers
    ):
        raise ActionError(
            f"{quoted(text)} cannot say when to notify. Give percents from 1 to {HIGHEST_THRESHOLD}, "
            "such as 50, 80, 100."
        )
    if len(numbers) > MOST_THRESHOLDS:
        raise ActionError(f"A budget notifies at up to {MOST_THRESHOLDS} percentages. Leave some out.")
    return sorted(numbers)


def checked_limits(limits: Mapping[str, str], *, tool: str) -> dict[str, Any]:
    """The limits as numbers, None where there is none. Raises ActionError."""
    for name in limits:
        if name not in LIMITS:
            raise ActionError(f"A budget limits {', '.join(WORDS.values())}, not {quoted(name)}.")
    values = {name: _number(name, limits.get(name, "").strip()) for name in LIMITS}
    if all(value is None for value in values.values()):
        raise ActionError("Give at least one limit: tokens, cost in USD or tool calls.")
    if tool and (
        values["tool_calls"] is None or values["tokens"] is not None or values["cost_usd"] is not None
    ):
        raise ActionError("The budget of one tool limits the number of its calls, and nothing else.")
    return values


def _number(name: str, text: str) -> Decimal | int | None:
    if not text:
        return None
    amount = read_amount(text.removeprefix("$") if name == "cost_usd" else text)
    step = SMALLEST_USD if name == "cost_usd" else Decimal(1)
    if amount is None or amount > LARGEST[name] or amount % step:
        kind = "an amount in USD such as 50 or 2.50" if name == "cost_usd" else "a whole number such as 5000"
        raise ActionError(f"{quoted(text)} cannot be a limit on {WORDS[name]}. Give {kind}.")
    return amount if name == "cost_usd" else int(amount)
