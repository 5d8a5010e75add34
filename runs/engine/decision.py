"""What comes next in a run: a pure function of its rows. Resume, retry and first start are the same code."""

from __future__ import annotations

from datetime import timedelta

from runs.actions import ASKED, RESTARTS
from runs.engine import length, rooms
from runs.engine.failures import (
    WORKER_LOST,
    cut_off_answers,
    failures_in_a_row,
    paused_turns,
    retry_delay,
)
from runs.engine.history import Attempt, Call, History, Note
from runs.engine.limits import Exceeded, counted
from runs.engine.moves import (
    CONTINUE,
    CONTINUED_NOTE,
    WRAP_UP,
    Authorize,
    CallModel,
    Continue,
    Finish,
    HandOver,
    Move,
    Park,
    Pause,
    Recover,
    Revise,
    RunTools,
    Situation,
    Tell,
    WrapUp,
)
from runs.models import CONTINUED, GOOD_ENDS, AtLimit

MAX_ATTEMPTS = 6
MAX_LOST_WORKERS = 20  # workers that may die in one turn, or in a row: rarely its fault, but it could be
LOOK_AT_THEM = "Look at their memory and logs."
MAX_LONGER_ANSWERS = 2  # times a cut-off answer is asked for again with more room
MAX_PAUSED_TURNS = 8


def decide(situation: Situation) -> Move:
    """The next move. A pause that a person asked for comes first, unless the run is over; what a person found
    out is told before the next request, and before an answer counts as the last one; an edit is checked
    before the run waits or works on.
    """
    if situation.takeovers >= MAX_LOST_WORKERS:
        return Finish("failed", WORKER_LOST, f"{situation.takeovers} workers died with it. {LOOK_AT_THEM}")
    move = _next_move(situation)
    if situation.pause_asked_by and not isinstance(move, Finish):
        return Pause(ASKED, f"Paused by {situation.pause_asked_by}.")
    if situation.unchecked_edits and isinstance(move, RunTools | Park):
        return Revise()
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
        beyond = rooms.calls_that_wait(situation.shared) if isinstance(move, RunTools) else None
        return _pause_at(beyond) if beyond else move
    notes = [item for item in items if isinstance(item, Note) and item.seq > last.seq]
    if any(note.has_words for note in notes):
        return _call(situation)
    if last.status == "failed":
        # A person resumed or retried it: what failed before that no longer counts.
        return _call(situation) if notes else _after_failure(situation, last)
    if notes and (last.is_empty or last.stop_reason not in GOOD_ENDS):
        return _call(situation)
    return _after_turn(situation, last)


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
    failures, deaths = failures_in_a_row(situation.history)
    if last.error_action == "pause":
        return Pause(last.error_kind, last.error)
    if length.was_refused(situation.history, last) and not wrapped_up(situation.history):
        return _wrap_up(length.exceeded(situation.limits))
    if last.error_action == "fail":
        return Finish("failed", last.error_kind, last.error)
    if failures >= MAX_ATTEMPTS:
        return Finish("failed", last.error_kind, f"{last.error} Tried {failures} times.")
    if deaths >= MAX_LOST_WORKERS:
        sentence = f"{deaths} workers died in the middle of this turn. {LOOK_AT_THEM}"
        return Finish("failed", WORKER_LOST, sentence)
    until = (last.ended_at or situation.now) + timedelta(seconds=retry_delay(failures, last))
    if until > situation.now:
        return Park(until, last.error_kind, f"{last.error} Trying again by itself.")
    return _call(situation, attempt=failures + deaths + 1)


def _after_turn(situation: Situation, turn: Attempt) -> Move:
    """The last turn is complete and all its calls have results."""
    history = situation.history
    if (note := _summary_note(history)) is not None and note.name == CONTINUED_NOTE:
        return _after_summary(situation, turn, note)
    if note is not None:
        return Finish("stopped", note.name.removeprefix(f"{WRAP_UP}:"), note.summary)
    if turn.calls or turn.stop_reason == "pause_turn":
        if paused_turns(history) > MAX_PAUSED_TURNS:
            return Finish("failed", "pause_turn", "The model paused its turn too often without an answer.")
        return _call(situation)
    if turn.stop_reason in {"end_turn", "stop_sequence"}:
        if not turn.is_empty:
            return Finish("succeeded")
        if any(note.name == CONTINUE for note in _notes(history)):
            return Finish("failed", "empty_answer", "The model ended its turn without an answer, twice.")
        return Continue()
    if turn.stop_reason == "model_context_window_exceeded" and length.has_worked(history):
        return _wrap_up(length.exceeded(situation.limits))
    return _failed_by(turn.stop_reason)


def _after_summary(situation: Situation, turn: Attempt, note: Note) -> Move:
    """Hand over, unless there is no summary or a successor could not do anything."""
    if turn.is_empty or turn.stop_reason not in {"end_turn", "stop_sequence", "max_tokens"}:
        return _failed_by("model_context_window_exceeded")
    limits, spent = situation.limits, situation.spent
    short = length.nothing_left(situation.history, limits, spent, situation.max_tokens, situation.prices)
    return Finish("stopped", short.limit, short.sentence) if short else HandOver(note.summary)


def _failed_by(stop_reason: str) -> Finish:
    sentences = {
        "refusal": "The model refused to go on with this task. Rephrase the question or take another model.",
        "max_tokens": "The answer was cut off by its output limit, also with more room. Raise max_tokens.",
        "model_context_window_exceeded": "The conversation is longer than the model can read. "
        "Start a new run with a narrower question.",
    }
    sentence = sentences.get(stop_reason, f"The model stopped for a reason we do not know: {stop_reason}.")
    return Finish("failed", stop_reason or "unknown_stop_reason", sentence)


def _call(situation: Situation, *, attempt: int = 1) -> Move:
    """Ask the model, when the limits allow it."""
    final = wrapped_up(situation.history)
    left = situation.shared.rooms
    exceeded = None if final else counted(situation.limits, situation.spent) or rooms.calls_used_up(left)
    if exceeded is None and not final:
        exceeded = length.reached(situation.history, situation.context_window, situation.limits)
    if exceeded is None:
        more = situation.max_tokens * 2 ** cut_off_answers(situation.history)
        wanted = min(more, max(situation.max_tokens, situation.largest_answer))
        fits = rooms.fit(
            left,
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
    if isinstance(exceeded, rooms.UsedUp):
        if exceeded.in_flight:
            until = situation.now + timedelta(seconds=rooms.IN_FLIGHT_SECONDS)
            return Park(until, exceeded.limit, exceeded.explanation)
        if exceeded.room.pauses:
            return _pause_at(exceeded)
    if final:
        return Finish("stopped", exceeded.limit, f"{exceeded.sentence} There was no room for a summary.")
    asks = situation.at_limit == AtLimit.PAUSE and exceeded.limit not in {CONTINUED, "repeats"}
    if asks and not isinstance(exceeded, rooms.UsedUp):
        return Pause(exceeded.limit, f"{exceeded.sentence} Raise it, and the run goes on where it is.")
    return _wrap_up(exceeded)


def _wrap_up(exceeded: Exceeded) -> WrapUp:
    return WrapUp(exceeded.limit, exceeded.sentence)


def _pause_at(used_up: rooms.UsedUp) -> Pause:
    return Pause(used_up.limit, used_up.explanation, used_up.room, used_up.until)
