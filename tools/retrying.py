"""Which failures of a read are worth another attempt, and when."""

from __future__ import annotations

import math

from tools.base import ToolError

MOST_ATTEMPTS = 3
LONGEST_PAUSE = 30.0
FIRST_PAUSE = 0.2
RETRIED = frozenset({"timeout", "unavailable", "rate_limited", "bad_response"})


def pause_before_next(error: ToolError, attempt: int, chance: float) -> float | None:
    """Seconds to wait after this attempt (the first is 1) before the next, or None to give up.

    Half of the growing pause is fixed and half depends on `chance` in [0, 1), so that many readers do not
    come back together. What a backend asks for is honoured up to LONGEST_PAUSE.
    """
    if error.kind not in RETRIED or attempt >= MOST_ATTEMPTS:
        return None
    backoff = FIRST_PAUSE * 2.0 ** (attempt - 1) * (1 + chance) / 2
    asked = error.retry_after_s
    if asked is None or not math.isfinite(asked):
        return backoff
    return min(max(backoff, asked), LONGEST_PAUSE)


def note(attempt: int, *, answered: bool) -> tuple[str, ...]:
    """What an envelope says about its attempts; nothing when there was one."""
    if attempt == 1:
        return ()
    if not answered:
        return (f"failed at all {attempt} attempts",)
    return (f"answered at the {'2nd' if attempt == 2 else '3rd'} attempt",)
