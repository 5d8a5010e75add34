"""A rule-based investigator: reads the conversation it is sent and decides the next turn.

It knows operations in general and nothing in particular. Every choice follows from the question and
from the structured parts of tool results; what log lines, commit messages or tickets *say* is quoted
as data and never followed. The same conversation always gets the same turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runs.claude.simulator.answer import Answer
from runs.claude.simulator.brain.aftermath import follow_up
from runs.claude.simulator.brain.case import Case, read
from runs.claude.simulator.brain.inquiry import look_closer, try_to_refute
from runs.claude.simulator.brain.opening import open_investigation
from runs.claude.simulator.brain.remedy import propose
from runs.claude.simulator.brain.report import conclude, summary
from runs.claude.simulator.brain.ticket import hand_over, tune

_LAST_TURN = 16  # whatever happens, an answer comes before this

# In order; the first that has something to do makes the turn.
_MOVES: tuple[Callable[[Case], Answer | None], ...] = (
    open_investigation,
    follow_up,
    look_closer,
    try_to_refute,
    propose,
    tune,
    hand_over,
)


def think(body: dict[str, Any]) -> Answer:
    """The turn that answers this request. Copes with any tools and any conversation."""
    case = read(body)
    if not case.may_call or case.turn > _LAST_TURN:
        return summary(case)
    for move in _MOVES:
        answer = move(case)
        if answer is not None:
            return answer
    return conclude(case)
