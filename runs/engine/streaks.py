"""What happened several times in a row at the end of a history."""

from __future__ import annotations

from runs.engine.history import Attempt, History


def cut_off_answers(history: History) -> int:
    """How often in a row the answer was cut off by its output limit: each gets more room."""
    count = 0
    for item in reversed(history.items):
        if not isinstance(item, Attempt) or item.status != "failed":
            break
        count += item.error_kind == "max_tokens"
    return count


def failures_in_a_row(history: History) -> int:
    """How many attempts at the present turn failed so far."""
    count = 0
    for item in reversed(history.items):
        if not isinstance(item, Attempt) or item.status != "failed":
            break
        count += 1
    return count


def paused_turns(history: History) -> int:
    """How often in a row the model paused its turn."""
    count = 0
    for item in reversed(history.items):
        if not isinstance(item, Attempt) or item.stop_reason != "pause_turn":
            break
        count += 1
    return count
