"""Sums over some charges, under the names that pages use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from runs.models.cost_sum import MEASURES
from runs.money import FRACTION

_PLACE = {name: n for n, name in enumerate(MEASURES)}
_AMOUNTS = frozenset(name for name in MEASURES if name.endswith("amount"))


def usd(amount: int) -> Decimal:
    """A whole number of FRACTIONs of a dollar as exact USD."""
    return Decimal(amount) / FRACTION


class Tally:
    """Sums over some charges. `cost` counts priced ones only; what has no price is counted apart."""

    __slots__ = ("values",)

    def __init__(self, values: Iterable[int] = ()) -> None:
        self.values = list(values) or [0] * len(MEASURES)

    def add(self, values: Sequence[int]) -> None:
        """Add measures in the order of MEASURES."""
        self.values = [have + more for have, more in zip(self.values, values, strict=True)]

    def __getattr__(self, name: str) -> int:
        try:
            return self.values[_PLACE[name]]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def cost(self) -> Decimal:
        return usd(self.amount)

    @property
    def shown_cost(self) -> Decimal | None:
        """None when something was used and nothing of it has a price."""
        return None if self.unpriced and not self.priced else self.cost

    @property
    def tokens(self) -> int:
        return self.sent + self.output_tokens

    @property
    def sent(self) -> int:
        """Input tokens of every class."""
        written = self.cache_write_5m_tokens + self.cache_write_1h_tokens
        return self.input_tokens + written + self.cache_read_tokens

    @property
    def cache_share(self) -> float | None:
        return self.cache_read_tokens / self.sent if self.sent else None

    @property
    def uncached(self) -> Decimal:
        """What the same tokens would have cost without a cache."""
        return usd(self.uncached_amount)

    @property
    def saved(self) -> Decimal:
        """By caching; below zero when writing cost more than reading saved."""
        return usd(self.uncached_amount - self.amount)

    @property
    def mean_per_run(self) -> Decimal | None:
        return self.cost / self.runs if self.runs > 0 and self.priced else None

    def part(self, parts: int, *, first: bool) -> list[int]:
        """An equal share of tokens and amounts; calls stay whole. What cannot be divided is the first's."""
        return [
            value if name in {"calls", "priced", "unpriced", "failed", "estimated", "runs"}
            else value // parts + (value % parts if first else 0)
            for name, value in zip(MEASURES, self.values, strict=True)
        ]  # fmt: skip
