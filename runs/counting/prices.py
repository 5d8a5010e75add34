"""Unit prices as whole numbers, so that amounts by class add up to the amount of the ledger. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runs.models import Price
from runs.money import FRACTION

MILLION = 1_000_000


@dataclass(frozen=True)
class WholePrices:
    """FRACTIONs of a dollar per million tokens of each class; web searches per thousand."""

    input: int
    write_5m: int
    write_1h: int
    read: int
    output: int
    search: int

    @classmethod
    def of(cls, price: Price) -> WholePrices:
        """A row keeps ten decimals, so nothing is lost."""
        units = (price.input, price.cache_write_5m, price.cache_write_1h, price.cache_read, price.output)
        return cls(*(int(unit * FRACTION) for unit in (*units, price.web_search)))

    def by_class(self, tokens: Sequence[int], amount: int) -> list[int]:
        """What each class cost: input, writes for 5 minutes and an hour, reads, output, web searches.

        Fractions are cut off; what is missing to the amount counts with the dearest class.
        """
        units = (self.input, self.write_5m, self.write_1h, self.read, self.output)
        parts = [n * unit // MILLION for n, unit in zip(tokens, units, strict=False)]
        parts.append(tokens[6] * self.search // 1000)
        parts[parts.index(max(parts))] += amount - sum(parts)
        return parts

    def uncached(self, tokens: Sequence[int]) -> int:
        """What the same tokens would have cost without a cache: all of the prompt at the price of input."""
        prompt = tokens[0] + tokens[1] + tokens[2] + tokens[3]
        return (prompt * self.input + tokens[4] * self.output) // MILLION + tokens[6] * self.search // 1000

    def missed(self, tokens: Sequence[int], missed: int) -> int:
        """What so many tokens cost more than if they had been read from the cache.

        They were paid at the mean price of what was sent and not read from it.
        """
        sent = tokens[0] + tokens[1] + tokens[2]
        if not sent:
            return 0
        paid = tokens[0] * self.input + tokens[1] * self.write_5m + tokens[2] * self.write_1h
        return max(0, (missed * paid - missed * sent * self.read) // (sent * MILLION))

    def unread(self, tokens: Sequence[int]) -> int:
        """What writing to the cache cost more than plain input."""
        extra = tokens[1] * (self.write_5m - self.input) + tokens[2] * (self.write_1h - self.input)
        return max(0, extra // MILLION)
