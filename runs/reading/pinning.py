"""A grant for calls such as this one: which arguments of an approval are pinned, and which are left open."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from runs.models import Approval
from tools import conditions

LONGEST_PIN = 60


@dataclass(frozen=True)
class Pinned:
    """What a form begins with: the fields of a grant, and the arguments that it does not pin."""

    fields: dict[str, str]
    open: tuple[str, ...]
    headline: str


def pin_approval(pk: int) -> Pinned | None:
    """The grant that lets calls such as that of this approval run; None when there is no such approval.

    Names, numbers and switches are pinned. Prose, lists and objects are not: they differ with every call.
    """
    approval = Approval.objects.select_related("run", "step").filter(pk=pk).first()
    if approval is None:
        return None
    arguments: dict[str, Any] = json.loads(approval.arguments)
    pinned = {name: value for name, value in arguments.items() if _is_name(value)}
    fields = {
        "tool": approval.step.name,
        "agent": approval.run.agent,
        "environment": approval.environment,
        "conditions": "\n".join(str(one) for one in conditions.pins(pinned)),
    }
    headline = str(approval.card.get("headline") or approval.step.name)
    return Pinned(fields, tuple(sorted(arguments.keys() - pinned.keys())), headline)


def _is_name(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_PIN and not any(letter.isspace() for letter in value)
    return value is None or isinstance(value, bool | int | float)
