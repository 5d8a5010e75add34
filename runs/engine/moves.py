"""What comes next in a run: a pure function of its rows. Resume, retry and first start are the same code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from runs.actions import ASKED, RESTARTS
from runs.agents import Limits
from runs.engine.history import Attempt, Call, History, Note
from runs.engine.limits import Exceeded, Spent, counted, reserve
from runs.models import GOOD_ENDS
from runs.money import UnitPrices

MAX_ATTEMPTS = 6
MAX_LONGER_ANSWERS = 2  # times a cut-off answer is asked for again with more room
MAX_PAUSED_TURNS = 8
LONGEST_WAIT = 15 * 60.0  # seconds; a server may ask for more, a person should not wait for it
WRAP_UP = "wrap_up"
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
    """A person has to do something first."""

    reason: str
    explanation: str


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


Move = CallModel | Authorize | RunTools | Recover | Park | Pause | WrapUp | Continue | Tell | Finish


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
    untold: int = 0  # findings of people about unknown outcomes


def decide(situation: Situation) -> Move:
    """The next move. A pause that a person asked for comes first, unless the run is over; what a person found
    out is told before the next request, and before an answer counts as the last one.
    """
    move = _next_move(situation)
    if situation.pause_asked_by and not isinstance(move, Finish):
        return Pause(ASKED, f"Paused by {situation.pause_asked_by}.")
    ends_well = isinstance(move, Finish) and move.status == "succeeded"
    return Tell() if situation.untold and (ends_well or isinstance(move, CallModel)) else move


def _next_move(situation: Situation) -> Move:
    items = situation.history.items
    last = next((item for item in reversed(items) if isinstance(item, Attempt)), None)
    if last is None:
        return _call(situation)
    if last.status == "running":
        return Recover(attempt=last.seq)
    if (move := _next_call(last.calls)) is not None:
        return move
    notes = [item for item in items if isinstance(item, Note) and item.seq > last.seq]
    if any(note.has_words for note in notes):
        return _call(situation)
    if last.status == "failed":
        # A person resumed or retried it: what failed before that no longer counts.
        return _call(situation) if notes else _after_failure(situation, last)
    if notes and (last.is_empty or last.stop_reason not in GOOD_ENDS):
        return _call(situation)
    return _after_turn(situation, last)


def is_about_size(move: WrapUp | Finish) -> bool:
    """Whether this move is made because the next call would be too large for a budget."""
    reason = move.limit if isinstance(move, WrapUp) else move.reason if move.status == "stopped" else ""
    return reason in {"tokens", "cost_usd"}


def wrapped_up(history: History) -> bool:
    """Whether the last summary was asked for."""
    return _summary_note(history) is not None


def _summary_note(history: History) -> Note | None:
    return next((note for note in _notes(history) if note.name.startswith(WRAP_UP)), None)


def _notes(history: History) -> list[Note]:
    """Our notes since the run was last given something new to do."""
    notes: list[Note] = []
    for item in reversed(history.items):
        if isinstance(item, Note):
            if item.name in RESTARTS:
                break
            notes.append(item)
    return notes


def _next_call(calls: tuple[Call, ...]) -> Move | None:
    """What the open calls of the last turn need; None when each has its result.

    Reads run at once. Effects wait until every gated call of the turn is decided, then run one by one
    in the order of the model.
    """
    by_status: dict[str, list[Call]] = {}
    for call in calls:
        by_status.setdefault(call.status, []).append(call)
    if cut_off := by_status.get("executing"):
        return Recover(calls=tuple(call.seq for call in cut_off))
    if proposed := by_status.get("proposed"):
        return Authorize(tuple(call.seq for call in proposed))
    ready = by_status.get("ready", [])
    if reads := [call.seq for call in ready if call.effect == "read"]:
        return RunTools(tuple(reads))
    if by_status.get("waiting"):
        return Park(None, "approval", "A person has to decide on a tool call.")
    if ready:
        return RunTools((ready[0].seq,))
    return None


def _after_failure(situation: Situation, last: Attempt) -> Move:
    failures = _failures_in_a_row(situation.history)
    if last.error_action == "pause":
        return Pause(last.error_kind, last.error)
    if last.error_action == "fail":
        return Finish("failed", last.error_kind, last.error)
    if failures >= MAX_ATTEMPTS:
        return Finish("failed", last.error_kind, f"{last.error} Tried {failures} times.")
    until = (last.ended_at or situation.now) + timedelta(seconds=retry_delay(failures, last))
    if until > situation.now:
        return Park(until, last.error_kind, f"{last.error} Trying again by itself.")
    return _call(situation, attempt=failures + 1)


def retry_delay(failures: int, last: Attempt) -> float:
    """Seconds to wait after so many failures in a row; what the server asks for counts, within reason."""
    if last.error_kind in {"max_tokens", "worker_lost"}:
        return 0.0
    backoff = min(0.5 * 2**failures, 60.0)
    wait: float = max(backoff, last.retry_after_seconds or 0.0)
    return min(wait, LONGEST_WAIT)


def cut_off_answers(history: History) -> int:
    """How often in a row the answer was cut off by its output limit: each gets more room."""
    count = 0
    for item in reversed(history.items):
        if not isinstance(item, Attempt) or item.status != "failed":
            break
        count += item.error_kind == "max_tokens"
    return count


def _failures_in_a_row(history: History) -> int:
    count = 0
    for item in reversed(history.items):
        if not isinstance(item, Attempt) or item.status != "failed":
            break
        count += 1
    return count


def _after_turn(situation: Situation, turn: Attempt) -> Move:
    """The last turn is complete and all its calls have results."""
    history = situation.history
    if (note := _summary_note(history)) is not None:
        return Finish("stopped", note.name.removeprefix(f"{WRAP_UP}:"), note.summary)
    if turn.calls or turn.stop_reason == "pause_turn":
        if _paused_turns(history) > MAX_PAUSED_TURNS:
            return Finish("failed", "pause_turn", "The model paused its turn too often without an answer.")
        return _call(situation)
    if turn.stop_reason in {"end_turn", "stop_sequence"}:
        if not turn.is_empty:
            return Finish("succeeded")
        if any(note.name == CONTINUE for note in _notes(history)):
            return Finish("failed", "empty_answer", "The model ended its turn without an answer, twice.")
        return Continue()
    return _failed_by(turn.stop_reason)


def _failed_by(stop_reason: str) -> Finish:
    sentences = {
        "refusal": "The model refused to go on with this task. Rephrase the question or take another model.",
        "max_tokens": "The answer was cut off by its output limit, also with more room. Raise max_tokens.",
        "model_context_window_exceeded": "The conversation is longer than the model can read. "
        "Start a new run with a narrower question.",
    }
    sentence = sentences.get(stop_reason, f"The model stopped for a reason we do not know: {stop_reason}.")
    return Finish("failed", stop_reason or "unknown_stop_reason", sentence)


def _paused_turns(history: History) -> int:
    count = 0
    for item in reversed(history.items):
        if not isinstance(item, Attempt) or item.stop_reason != "pause_turn":
            break
        count += 1
    return count


def _call(situation: Situation, *, attempt: int = 1) -> Move:
    """Ask the model, when the limits allow it."""
    final = wrapped_up(situation.history)
    exceeded = None if final else counted(situation.limits, situation.spent)
    if exceeded is None:
        more = situation.max_tokens * 2 ** cut_off_answers(situation.history)
        wanted = min(more, max(situation.max_tokens, situation.largest_answer))
        fits = reserve(
            situation.limits,
            situation.spent,
            prompt_tokens=situation.history.prompt_tokens,
            wanted=wanted,
            prices=situation.prices,
            final=final,
        )
        if not isinstance(fits, Exceeded):
            return CallModel(attempt, fits.max_tokens, fits.worst_tokens, fits.worst_usd, final)
        exceeded = fits
    if final:
        return Finish("stopped", exceeded.limit, f"{exceeded.sentence} There was no room for a summary.")
    return WrapUp(exceeded.limit, exceeded.sentence)
