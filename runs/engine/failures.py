"""What failed or was left undone at the end of a history: how often in a row, and how long to wait."""

from __future__ import annotations

from runs.engine.history import Attempt, History

WORKER_LOST = "worker_lost"
LONGEST_WAIT = 15 * 60.0  # seconds; a server may ask for more, a person should not wait for it


def retry_delay(failures: int, last: Attempt) -> float:
    """Seconds to wait after so many failures in a row; what the server asks for counts, within reason."""
    if last.error_kind in {"max_tokens", WORKER_LOST}:
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


def failures_in_a_row(history: History) -> tuple[int, int]:
    """Failures of the model since the last good turn, and deaths of workers, which are not the model's."""
    failures = deaths = 0
    for item in reversed(history.items):
        if not isinstance(item, Attempt) or item.status != "failed":
            break
        deaths += item.error_kind == WORKER_LOST
        failures += item.error_kind != WORKER_LOST
    return failures, deaths


def paused_turns(history: History) -> int:
    """How often in a row the model paused its turn."""
    count = 0
    for item in reversed(history.items):
        if not isinstance(item, Attempt) or item.stop_reason != "pause_turn":
            break
        count += 1
    return count
