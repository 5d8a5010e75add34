"""Between the decision and START: wait where it cannot be undone, look whether it is what people saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.utils import timezone

from runs import actions
from runs.actions import COOLING_OFF_WAITS, Lease, Question, Refusal
from runs.engine.acts import Act, Record, Standing
from runs.models import COOLING_OFF, Approval, Step, StepStatus
from tools import boundary
from tools.base import Tool, ToolContext

SOON_SECONDS = 0.25
AGAIN_SECONDS = 5.0  # until the next look when the last one failed
UNSEEN = "preview"  # the reason of a run that waits for that
LOOKED = "_looked_again"  # mark on the remembered step: lost with it, and then it is looked at again

# What a dry run may find wrong that the model can put right by itself: no person is asked about it.
CORRECTABLE = frozenset(
    {
        "invalid_argument",
        "unknown_service",
        "unknown_metric",
        "stale_precondition",
        "conflict",
        "forbidden",
    }
)

# What people are asked about a preview, as policy stands now.
Ask = Callable[[dict[str, Any]], Question | Refusal]


@dataclass(frozen=True)
class Look:
    """The act: a dry run of what people approved. Nothing has begun, and it leaves no trace in the rows."""

    lease: Lease
    seq: int
    approval: Approval
    tool: Tool
    context: ToolContext
    ask: Ask

    def __call__(self) -> Record:
        preview = boundary.preview(self.tool, json.loads(self.approval.arguments), self.context)
        return Record(partial(self._store, preview))

    def _store(self, preview: dict[str, Any]) -> Standing | None:
        """Go on to START, ask again, tell the model, or come back when it could not be seen."""
        _, steps = actions.driven(self.lease)
        step = steps[self.seq - 1]
        if step.status != StepStatus.READY:  # it was taken back meanwhile
            return None
        problem, kind = preview["problem"], preview["problem_kind"]
        if problem and kind not in CORRECTABLE:
            return _come_back(self.lease, self.approval, problem)
        if problem:
            message = f"It was approved, but production changed before it started. {problem} It did not run."
            actions.refuse_call(self.lease, self.seq, Refusal(kind, message))
        elif changed := drift(self.approval.card.get("basis") or {}, preview["basis"]):
            self._ask_again(preview, changed)
        else:
            vars(step)[LOOKED] = True
        return None

    def _ask_again(self, preview: dict[str, Any], changed: list[dict[str, str]]) -> None:
        question = self.ask(preview)
        if isinstance(question, Refusal):
            said = Refusal(question.kind, f"{question.message} It did not run.")
            actions.refuse_call(self.lease, self.seq, said)
        else:
            actions.ask_again(self.lease, self.seq, question, changed)


def begin(
    lease: Lease, step: Step, approval: Approval, tool: Tool, context: ToolContext, ask: Ask
) -> Act | Standing | None:
    """Park while it can still be taken back; then the act that looks again, once; None when it may start."""
    if actions.cools_off(lease, approval.not_before):
        least = timezone.now() + timedelta(seconds=SOON_SECONDS)  # this clock may be ahead of the database
        until = max(approval.not_before or least, least)
        parked = actions.park(lease, until=until, reason=COOLING_OFF, explanation=COOLING_OFF_WAITS)
        return Standing.OVER if parked else Standing.GO_ON
    seen = approval.card
    late = approval.execute_by is not None and timezone.now() > approval.execute_by
    if tool.dry_run is None or LOOKED in vars(step) or seen.get("problem") or late:
        return None
    return Look(lease, step.seq, approval, tool, context, ask)


def _come_back(lease: Lease, approval: Approval, problem: str) -> Standing | None:
    until = timezone.now() + timedelta(seconds=AGAIN_SECONDS)
    if approval.execute_by is not None:
        until = min(until, approval.execute_by)
    explanation = f"It is approved, and whether it is still what people saw could not be looked at: {problem}"
    parked = actions.park(lease, until=until, reason=UNSEEN, explanation=explanation)
    return Standing.OVER if parked else None


def drift(seen: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, str]]:
    """What is material and not as people saw it: [{what, was, now}]; empty where nothing was said then."""
    return actions.differences(dict(seen), dict(now)) if seen else []
