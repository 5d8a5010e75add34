"""Advice on limits: what successful runs needed beside what a run may use, and runs that failed dearly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from decimal import ROUND_UP, Decimal
from typing import Any

from runs.agents import Limits
from runs.models import Run, RunStatus
from runs.reading.advice.attempts import FEWEST_RUNS, Looked
from runs.reading.advice.suggestions import Advice, missing, most, usd

FAR = 4  # a limit that is so many times what any successful run needed bounds nothing
ROOM = 2  # times what any successful run needed: what is suggested
STOPS = 0.05  # of all runs: a limit that stops more is in the way
LIMITS: tuple[tuple[str, str, Callable[[Run], Decimal]], ...] = (
    ("cost_usd", "cost in USD", lambda run: run.cost_usd),
    ("steps", "steps", lambda run: Decimal(run.step_count)),
    ("tool_calls", "tool calls", lambda run: Decimal(run.tool_calls)),
    ("tokens", "tokens", lambda run: Decimal(_tokens(run))),
    ("seconds", "seconds under a driver", lambda run: Decimal(round(run.driven_seconds))),
)


def limit_advice(looked: Looked, limits: Limits | None) -> Iterator[Advice]:
    """One per limit of a run, and one about runs that failed; nothing on limits of an agent that is gone."""
    if limits is not None:
        succeeded = looked.succeeded
        if len(succeeded) < FEWEST_RUNS:
            yield missing("Limits of a run", len(succeeded), "successful runs")
        else:
            for name, words, amount in LIMITS:
                yield _limit(looked, name, words, amount, Decimal(str(getattr(limits, name))))
    yield _dear_failures(looked)


def _limit(looked: Looked, name: str, words: str, amount: Callable[[Run], Decimal], limit: Decimal) -> Advice:
    title = f"Limit on {words}"
    counted = [run for run in looked.succeeded if name != "cost_usd" or not run.unpriced_calls]
    if len(counted) < FEWEST_RUNS:
        return missing(title, len(counted), "successful runs whose calls all have a price")
    values = sorted(amount(run) for run in counted)
    ninety_nine, highest = values[math.ceil(0.99 * len(values)) - 1], values[-1]
    stopped = [run for run in looked.runs.values() if run.status == RunStatus.STOPPED and run.reason == name]
    is_highest = ", which of so few is the highest" if len(values) < 100 else ""
    sums = [
        f"99 % of {len(values)} successful runs needed at most {_say(name, ninety_nine)}{is_highest}; "
        f"the highest was {_say(name, highest)}",
        f"the limit is {_say(name, limit)}"
        + (f", {limit / highest:.1f} times the highest" if highest else ""),
    ]
    needed: dict[int, Any] = {run.pk: amount(run) for run in counted}
    if len(stopped) > STOPS * len(looked.runs):
        sums.append(f"{len(stopped)} of {len(looked.runs)} runs were stopped by it")
        says = "It stops runs. If they were on a good way, raise it; look at them first."
        return Advice("do", title, says, tuple(sums), tuple(stopped[:5]))
    if highest and limit > FAR * highest:
        unit = "" if name == "cost_usd" else f" {words}"
        better = _rounded(name, ROOM * highest)
        sums.append(
            f"{ROOM} × {_say(name, highest)}, rounded up = {_say(name, better)}: it would have stopped none "
            f"of the {len(values)}, and a run gone astray ends {_say(name, limit - better)}{unit} earlier"
        )
        return Advice("do", title, f"Lower it to {_say(name, better)}.", tuple(sums), most(looked, needed))
    return Advice("fine", title, "It fits what runs need.", tuple(sums))


def _dear_failures(looked: Looked) -> Advice:
    title = "Runs that failed after spending more than any successful one"
    priced = [run for run in looked.succeeded if not run.unpriced_calls]
    if len(priced) < FEWEST_RUNS:
        return missing(title, len(priced), "successful runs whose calls all have a price")
    highest = max(run.cost_usd for run in priced)
    lost = {
        run.pk: run.cost_usd - highest
        for run in looked.runs.values()
        if run.status in {RunStatus.FAILED, RunStatus.STOPPED} and run.cost_usd > highest
    }
    if not lost:
        return Advice("fine", title, f"There is none. The dearest successful run cost {usd(highest)}.")
    over = sum(lost.values(), Decimal(0))
    spent = over + highest * len(lost)
    sums = (
        f"{len(lost)} failed or stopped runs cost {usd(spent)}; the dearest of {len(priced)} successful ones "
        f"cost {usd(highest)}",
        f"{usd(spent)} − {len(lost)} × {usd(highest)} = {usd(over)} beyond what ever led to success",
    )
    says = f"A limit of {usd(highest)} on cost would have ended them earlier."
    return Advice("do", title, says, sums, most(looked, lost))


def _tokens(run: Run) -> int:
    return (
        run.input_tokens
        + run.cache_write_5m_tokens
        + run.cache_write_1h_tokens
        + run.cache_read_tokens
        + run.output_tokens
    )


def _rounded(name: str, value: Decimal) -> Decimal:
    """Up to two digits that matter."""
    step = Decimal(1).scaleb(value.adjusted() - 1)
    rounded = (value / step).quantize(Decimal(1), rounding=ROUND_UP) * step
    return rounded if name == "cost_usd" else rounded.to_integral_value(rounding=ROUND_UP)


def _say(name: str, value: Decimal) -> str:
    return usd(value) if name == "cost_usd" else f"{value:,.0f}"
