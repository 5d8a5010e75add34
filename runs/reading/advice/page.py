"""The page of advice for one agent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from runs.agents import installed
from runs.models import Run
from runs.reading.advice.attempts import SIZES, Looked, look_at
from runs.reading.advice.caching import caching_advice
from runs.reading.advice.limits import limit_advice
from runs.reading.advice.results import result_advice
from runs.reading.advice.suggestions import Advice
from runs.reading.advice.what_if import WhatIf, compare_models, todays_prices

ORDER = ("do", "fine", "missing")


@dataclass(frozen=True)
class AdvicePage:
    """Everything that is advised, suggestions first."""

    looked: Looked
    size: int
    what_if: WhatIf
    advice: tuple[Advice, ...]

    @property
    def runs(self) -> list[Run]:
        return list(self.looked.runs.values())

    @property
    def suggestions(self) -> int:
        return sum(one.kind == "do" for one in self.advice)


def find_size(text: str) -> int:
    """How many runs are looked at: one of SIZES."""
    return int(text) if text in map(str, SIZES) else SIZES[1]


def read_advice(agent: str, size: int, *, simulated: bool | None, now: datetime) -> AdvicePage | None:
    """Advice from the last `size` ended runs; None when there is no agent of this name and no run of it."""
    looked = look_at(agent, size, simulated=simulated)
    known = installed().get(agent)
    if known is None and not looked.runs:
        return None
    advice = [
        *caching_advice(looked),
        *result_advice(looked),
        *limit_advice(looked, known.limits if known else None),
    ]
    advice.sort(key=lambda one: ORDER.index(one.kind))
    return AdvicePage(looked, size, compare_models(looked, todays_prices(now)), tuple(advice))


def agent_names() -> list[str]:
    """Agents that advice can be given for: those of this installation."""
    return list(installed())
