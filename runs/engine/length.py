"""When a conversation comes near what the model can read. Pure, from facts; `moves` decides with it."""

from __future__ import annotations

from runs.agents import Limits
from runs.engine.history import Attempt, History
from runs.engine.limits import Exceeded, Spent, counted, reserve
from runs.models import CONTINUED
from runs.money import UnitPrices

NEAR = 0.8  # of what the model can read: a turn and its results have to fit into the rest
TOO_LONG = frozenset({"prompt_too_long", "too_large"})  # what the API says of a conversation that is
SENTENCE = "The conversation is nearly as long as the model can read."


def reached(history: History, window: int, limits: Limits) -> Exceeded | None:
    """Whether a summary is due now: for a successor, or for a person when there may be none."""
    if history.context_tokens < NEAR * window or not has_worked(history):
        return None
    return exceeded(limits)


def exceeded(limits: Limits) -> Exceeded:
    """What ends a run whose conversation is too long; the reason says whether it may hand over."""
    if limits.hand_overs > 0:
        return Exceeded(CONTINUED, SENTENCE)
    return Exceeded("hand_overs", f"{SENTENCE} It was handed over as often as its limit allows.")


def was_refused(history: History, last: Attempt) -> bool:
    """Whether the API refused the conversation as too long, and a shorter one was read before."""
    return last.error_kind in TOO_LONG and has_worked(history)


def has_worked(history: History) -> bool:
    """Whether there is anything to hand over: tools were called."""
    turns = (item for item in history.items if isinstance(item, Attempt))
    return any(turn.status == "succeeded" and turn.calls for turn in turns)


def nothing_left(
    history: History, limits: Limits, spent: Spent, wanted: int, prices: UnitPrices | None
) -> Exceeded | None:
    """The limit that would not let a successor do anything, if any."""
    fits = counted(limits, spent) or reserve(
        limits, spent, prompt_tokens=history.opening_tokens, wanted=wanted, prices=prices, final=False
    )
    return fits if isinstance(fits, Exceeded) else None
