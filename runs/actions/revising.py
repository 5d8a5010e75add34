"""What is different in a later revision of a call, and how the model is told that a person changed it."""

from __future__ import annotations

import json
from typing import Any

from runs.models import Origin, Step, StepStatus
from tools.canonical import canonical as as_canonical

NOT_GIVEN = "(not given)"
RAN = frozenset({StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.UNKNOWN})


def canonical(arguments: Any) -> str:
    """Canonical JSON text (RFC 8785): these bytes are approved and run. Raises NotCanonical, a ValueError."""
    return as_canonical(arguments)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, str]]:
    """Values that are not the same in both: [{what, was, now}] in the order of names; nested ones by path."""
    was, now = _flat(before), _flat(after)
    return [
        {"what": name, "was": was.get(name, NOT_GIVEN), "now": now.get(name, NOT_GIVEN)}
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    ]


def told(step: Step, text: str) -> str:
    """The result for the model; one of a call that people changed says so first, and what they changed.

    The proposal itself is never rewritten. `step` has its final status by now.
    """
    if step.effect == "read":  # nobody is asked about a read
        return text
    newest = step.approvals.filter(revision__gt=1).order_by("-revision").first()
    if newest is None:
        return text
    proposed = json.loads(step.arguments)
    if newest.arguments == canonical(proposed):
        return text
    by = step.approvals.filter(origin=Origin.EDITED).order_by("revision")
    names = list(dict.fromkeys(by.values_list("edited_by__username", flat=True)))
    ran = step.status in RAN
    who = " and ".join(names)
    what = (
        "What ran is this, not what you proposed. Do not run your own version unless asked."
        if ran
        else "What was decided on is this, not what you proposed."
    )
    changed = json.loads(newest.arguments)
    notice = {
        "note": f"A person ({who}) changed the arguments of this call before it was decided. {what}",
        "changes": [
            {"argument": one["what"], "proposed": one["was"], "changed_to": one["now"]}
            for one in differences(proposed, changed)
        ],
        "ran" if ran else "decided_on": changed,
    }
    try:
        envelope = json.loads(text)
    except ValueError:
        envelope = {"text": text}
    return json.dumps({"changed_by_a_person": notice, **envelope}, ensure_ascii=False)


def _flat(value: dict[str, Any], path: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, child in value.items():
        if isinstance(child, dict):
            flat |= _flat(child, f"{path}{name}.")
        else:
            flat[f"{path}{name}"] = child if isinstance(child, str) else json.dumps(child)
    return flat
