"""One tick of one service, as those who write its log lines see it."""

from __future__ import annotations

from collections.abc import Iterator

from tools.estate import shop
from tools.estate.model import State
from tools.estate.noise import count, uniforms, word
from tools.estate.timeline import Instance
from tools.estate.world import Estate
from tools.records import LEVELS, LogLine

# Which number of a service's gates belongs to which kind of line.
GATES = {
    "request": 0,
    "expired": 1,
    "slow": 2,
    "flags": 3,
    "gateway": 4,
    "stacked": 5,
    "guest": 5,
    "pressure": 6,
    "cut": 6,
    "timeout": 7,
    "access": 0,
    "broken": 1,
    "upstream": 2,
    "buffered": 3,
    "job": 0,
    "retry": 1,
    "refused": 2,
    "authorized": 0,
    "duration": 1,
}
RANK = {level: rank for rank, level in enumerate(LEVELS)}


class Tick:
    """Everything a writer of lines needs to know about one tick of one service."""

    def __init__(self, estate: Estate, service: str, tick: int) -> None:
        self.estate = estate
        self.service = service
        self.tick = tick
        self.state: State = estate.state(tick)
        self.start = estate.alert_at + tick * shop.TICK_SECONDS
        self.offset = float(tick * shop.TICK_SECONDS)
        self.instances = estate.timeline.instances(service, self.offset)
        self.gates = uniforms(estate.seed, f"log.{service}.gates", tick)
        self.busy = self.state.arrivals / shop.ARRIVALS_PER_SECOND
        self.lines: list[LogLine] = []

    def chances(self, stream: str) -> tuple[float, ...]:
        """Eight uniform numbers for one kind of line."""
        return uniforms(self.estate.seed, f"log.{self.service}.{stream}", self.tick)

    def times(self, stream: str, rate: float) -> Iterator[tuple[int, float, tuple[float, ...]]]:
        """(number, moment, chances) for each of about `rate` lines in this tick."""
        if rate <= 0:
            return
        # One digest decides for all kinds whether there is a line; most kinds have none in most ticks.
        for number in range(count(rate, self.gates[GATES[stream]])):
            chances = self.chances(f"{stream}.{number}")
            yield number, self.start + chances[1] * shop.TICK_SECONDS, chances

    def write(
        self, at: float, level: str, message: str, instance: Instance, trace: str = "", **fields: object
    ) -> None:
        """Add a line."""
        self.lines.append(
            LogLine(at, level, self.service, instance.name, instance.version, message, trace, fields)
        )

    def instance(self, chance: float) -> Instance:
        """One of the instances that serve."""
        return self.instances[int(chance * len(self.instances))]

    def trace(self, stream: str, number: int) -> str:
        """A trace id that belongs to this line."""
        return word(self.estate.seed, f"trace.{self.service}.{stream}.{number}", self.tick, 16)
