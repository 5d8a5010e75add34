"""Whether the effect of a call that had worked still holds: the recheck of its tool, asked as a read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from tools.base import Outcome, Result, Seen, Tool, ToolContext

Said = Literal["holds", "relapsed", "cannot_tell"]


@dataclass(frozen=True)
class Rechecked:
    """What a recheck said; `sentence` is clean and one line."""

    said: Said
    sentence: str


def was_verified(tool: Tool, outcome: Outcome) -> bool:
    """Whether the answer says that the expected effect was seen, and the tool can look again."""
    if tool.recheck is None or outcome.is_error:
        return False
    data = json.loads(outcome.text).get("data")
    verification = data.get("verification") if isinstance(data, dict) else None
    return isinstance(verification, dict) and verification.get("passed") is True


def as_read(tool: Tool, said: list[Seen]) -> Tool:
    """The recheck of this tool as a read, which notes in `said` what it sees."""
    return replace(tool, effect="read", function=_noting(tool.recheck, said))


def rechecked(outcome: Outcome, said: list[Seen]) -> Rechecked:
    """What to make of the end of that read. One that failed, or hung, cannot tell."""
    if outcome.is_error or not said:
        return Rechecked("cannot_tell", f"It could not be seen. {outcome.summary}")
    return Rechecked("holds" if said[-1].holds else "relapsed", outcome.summary)


def _noting(recheck: Callable[..., Seen] | None, said: list[Seen]) -> Callable[..., Result]:
    def look(context: ToolContext, **arguments: Any) -> Result:
        if recheck is None:
            raise TypeError("this tool has no recheck")
        seen = recheck(context, **arguments)
        said.append(seen)
        return Result(summary=seen.sentence)

    return look
