"""What one piece of advice is: a sentence, its arithmetic, and the runs behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from runs.models import Run
from runs.reading.advice.attempts import FEWEST_RUNS, Looked

MOST_RUNS = 5  # linked


@dataclass(frozen=True)
class Advice:
    """`kind` is `do` (a suggestion), `fine` (nothing to do) or `missing` (too little is known)."""

    kind: str
    title: str
    says: str
    sums: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()


def missing(title: str, have: int, what: str, need: int = FEWEST_RUNS) -> Advice:
    """That there is not enough to say anything."""
    return Advice("missing", title, f"It takes at least {need} {what}; there are {have}.")


def most(looked: Looked, amounts: dict[int, Decimal] | dict[int, int]) -> tuple[Run, ...]:
    """The runs with the largest of these amounts."""
    ordered: Iterable[int] = sorted(amounts, key=lambda run: (-amounts[run], run))
    return tuple(looked.runs[run] for run in ordered if amounts[run])[:MOST_RUNS]


def usd(amount: Decimal) -> str:
    """Exact USD with a real minus: $1.50, −$0.0041355."""
    whole, _, decimals = f"{abs(amount):,f}".partition(".")
    return f"{'−' if amount < 0 else ''}${whole}.{decimals.rstrip('0').ljust(2, '0')}"


def percent(part: Decimal | int, whole: Decimal | int) -> str:
    """What share of the whole, with one decimal."""
    return f"{100 * part / whole:.1f} %"
