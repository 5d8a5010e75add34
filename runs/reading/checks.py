"""What a tool measured after a change, against what was expected of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from runs.models import Step

MAX_CHARACTERS = 80


@dataclass(frozen=True)
class Check:
    """One measurement after a change. `expected` and `observed` are a tool's texts."""

    seq: int
    tool: str
    expected: str
    observed: str
    passed: bool


def check_of(step: Step) -> Check | None:
    """The verification that this call reported in its result; None when it reported none."""
    data = (step.envelope or {}).get("data")
    verification = data.get("verification") if isinstance(data, dict) else None
    if not isinstance(verification, dict) or not isinstance(verification.get("passed"), bool):
        return None
    return Check(
        seq=step.seq,
        tool=step.name,
        expected=_short(verification.get("expected")),
        observed=_short(verification.get("observed")),
        passed=verification["passed"],
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
