"""What may come next in a run: the moves, and everything that the choice among them depends on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from runs.agents import Limits
from runs.engine import rooms
from runs.engine.history import History
from runs.engine.limits import Spent
from runs.models import CONTINUED, AtLimit
from runs.models.budget import REASON
from runs.money import UnitPrices

# Names of our notes in the conversation.
WRAP_UP = "wrap_up"
CONTINUED_NOTE = f"{WRAP_UP}:{CONTINUED}"
CONTINUE = "continue"


@dataclass(frozen=True)
class CallModel:
    """Ask the model. `final`: without tools. `reserved_usd` is the worst case; None: unpriced."""

    attempt: int
    max_tokens: int
    reserved_tokens: int
    reserved_usd: Decimal | None
    final: bool


@dataclass(frozen=True)
class Authorize:
    """Ask policy about these proposed calls: run, refuse, or put before a person."""

    seqs: tuple[int, ...]


@dataclass(frozen=True)
class Revise:
    """People want to run other arguments than those that wait: make the dry runs, and ask about them."""


@dataclass(frozen=True)
class RunTools:
    """Run these calls, in this order."""

    seqs: tuple[int, ...]


@dataclass(frozen=True)
class Recover:
    """These calls or attempts were cut off by the death of their worker."""

    calls: tuple[int, ...] = ()
    attempt: int | None = None


@dataclass(frozen=True)
class Park:
    """Nothing to do until a person decides (`until` None) or until a time."""

    until: datetime | None
    reason: str
    explanation: str


@dataclass(frozen=True)
class Pause:
    """A person has to do something first. `room`: a budget that runs share holds this one back."""

    reason: str
    explanation: str
    room: rooms.Room | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class WrapUp:
    """A limit is reached: ask for a last summary."""

    limit: str
    explanation: str


@dataclass(frozen=True)
class Continue:
    """The model said nothing: ask it once to go on."""


@dataclass(frozen=True)
class Tell:
    """A person found out what became of a call: the conversation has to say so."""


@dataclass(frozen=True)
class Finish:
    """The run is over."""

    status: str
    reason: str = ""
    explanation: str = ""


@dataclass(frozen=True)
class HandOver:
    """The summary for a successor is written: end this run and queue the one that goes on."""

    explanation: str


Move = (
    CallModel
    | Authorize
    | Revise
    | RunTools
    | Recover
    | Park
    | Pause
    | WrapUp
    | Continue
    | Tell
    | HandOver
    | Finish
)


@dataclass(frozen=True)
class Situation:
    """Everything a decision depends on."""

    history: History
    limits: Limits
    spent: Spent
    max_tokens: int
    largest_answer: int
    prices: UnitPrices | None
    now: datetime
    pause_asked_by: str = ""
    at_limit: str = AtLimit.WRAP_UP
    shared: rooms.Shared = rooms.NOTHING
    context_window: int = 200_000  # tokens of a conversation
    untold: int = 0  # findings of people about unknown outcomes
    unchecked_edits: int = 0  # of calls that wait for a decision
    takeovers: int = 0  # workers that died in a row and recorded nothing


def is_about_size(move: Move) -> bool:
    """Whether this move is made because the next call would be too large for a budget."""
    if not isinstance(move, WrapUp | Finish | Pause):
        return False
    reason = move.limit if isinstance(move, WrapUp) else move.reason
    return reason in {"tokens", "cost_usd"} or reason.startswith(REASON)
