"""When a conversation is nearly as long as the model can read: the summary, and what it may still use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from runs.agents import Limits
from runs.engine.length import TOO_LONG
from runs.engine.limits import Spent
from runs.engine.moves import CONTINUED_NOTE
from runs.models import Run, Step, StepKind, StepStatus
from runs.money import context_window

DEFAULT_WINDOW = 200_000  # tokens, for a model that the price table does not know
REQUEST = (
    "{sentence} Do not call tools any more. Another run goes on with your work and reads nothing but your "
    "answer, so write it for your successor, in plain text: the task; what you found, each with its "
    "evidence id; what was changed, proposed or refused, and by whom; what you have ruled out; open "
    "questions; and the next steps. Mark what you are not sure of."
)
LEFT_OUT = "Called last, and not part of this summary for want of room:"


def window(model: str, limits: Limits) -> int:
    """How many tokens a conversation may have: what the model can read, or less by a limit."""
    readable = context_window(model) or DEFAULT_WINDOW
    return min(readable, limits.context_tokens or readable)


def left(run: Run, steps: Sequence[Step], limits: Limits, spent: Spent) -> Limits:
    """What a successor may use: these limits without what was used, and one hand-over less."""
    own = steps[run.copied_steps :]
    calls = Counter(s.name for s in own if s.kind == StepKind.TOOL and s.status != StepStatus.REFUSED)
    return replace(
        limits,
        steps=max(0, limits.steps - spent.steps),
        tool_calls=max(0, limits.tool_calls - spent.tool_calls),
        tokens=max(0, limits.tokens - spent.tokens),
        cost_usd=max(limits.cost_usd - spent.cost_usd, limits.cost_usd * 0),
        seconds=max(0, int(limits.seconds - spent.active_seconds)),
        calls_per_tool={name: max(0, most - calls[name]) for name, most in limits.calls_per_tool.items()},
        hand_overs=limits.hand_overs - 1,
    )


def readable(steps: list[Step]) -> list[Step]:
    """The steps that the next request is made of.

    All of them, except when the API refused the conversation as too long and a summary is asked for: then it
    is the conversation that it accepted last, and the request for the summary.
    """
    turn = _unread_turn(steps)
    if turn is None:
        return steps
    asked = next(step.seq for step in reversed(steps) if step.name == CONTINUED_NOTE)
    return [step for step in steps if step.seq < turn.seq or step.seq >= asked]


def summary(steps: list[Step], answer: str) -> str:
    """What the successor reads: the model's answer, and what it could not read when it wrote it."""
    turn = _unread_turn(steps)
    unread = [] if turn is None else [step for step in steps if step.parent_id == turn.pk]
    lines = [f"- {step.evidence_id} {step.name} {step.arguments}: {step.summary}" for step in unread]
    return "\n".join([answer, "", LEFT_OUT, *lines]) if lines else answer


def _unread_turn(steps: list[Step]) -> Step | None:
    """The last turn with its results, when a request that held them was refused as too long."""
    asked = next((n for n in reversed(range(len(steps))) if steps[n].name == CONTINUED_NOTE), None)
    before = [step for step in steps[:asked] if step.kind == StepKind.MODEL] if asked is not None else []
    if not before or before[-1].status != StepStatus.FAILED or before[-1].error_kind not in TOO_LONG:
        return None
    return next((step for step in reversed(before) if step.is_replayed), None)
