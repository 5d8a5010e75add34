"""Circuit breakers: a backend that keeps failing is left alone for a while; calls to it answer at once."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from tools.clock import Clock

MOST_FAILURES = 5  # in a row
WITHIN_SECONDS = 60.0
OPEN_SECONDS = 30.0
PROBE_SECONDS = 5.0  # what others are told to wait while one call tries whether the backend is back

State = Literal["closed", "open", "half_open"]
Verdict = Literal["answered", "failed", "unclear"]


@dataclass(frozen=True)
class Pass:
    """The right to make one attempt; its end is reported with it."""

    backend: str
    era: int


@dataclass(frozen=True)
class Condition:
    """How a backend is. `opened_at` is RFC 3339, or "" while the circuit is closed."""

    state: State
    failures: int
    opened_at: str


@dataclass
class _Circuit:
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_FAILURES))
    open_until: float | None = None  # None: closed
    opened_at: str = ""
    probing: bool = False
    era: int = 0  # grows with every change of state, so that late reports are told apart


class Breakers:
    """One circuit per backend of this process. Safe to use from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._circuits: dict[str, _Circuit] = {}

    def admit(self, backend: str) -> Pass | float:
        """The right to ask this backend now, or the seconds after which to try again.

        Whoever gets a pass must report its end. After an open time exactly one pass is given out.
        """
        with self._lock:
            circuit = self._circuits.setdefault(backend, _Circuit())
            if circuit.open_until is not None:
                left = circuit.open_until - self._clock.seconds()
                if left > 0 or circuit.probing:
                    return max(left, PROBE_SECONDS) if circuit.probing else left
                circuit.probing = True
                circuit.era += 1
            return Pass(backend, circuit.era)

    def report(self, granted: Pass, verdict: Verdict) -> None:
        """How the attempt ended. What began before the circuit opened or closed changes nothing any more."""
        with self._lock:
            circuit = self._circuits[granted.backend]
            if granted.era != circuit.era:
                return
            now = self._clock.seconds()
            if verdict == "answered":
                self._close(circuit)
            elif verdict == "failed":
                circuit.failures.append(now)
                recent = [at for at in circuit.failures if at > now - WITHIN_SECONDS]
                if circuit.probing or len(recent) >= MOST_FAILURES:
                    self._open(circuit, now)
            else:
                circuit.probing = False  # nothing was learnt: the next call may try

    def conditions(self) -> dict[str, Condition]:
        """Every backend that was asked so far."""
        with self._lock:
            return {name: self._condition(circuit) for name, circuit in self._circuits.items()}

    def _condition(self, circuit: _Circuit) -> Condition:
        now = self._clock.seconds()
        if circuit.open_until is None:
            recent = sum(at > now - WITHIN_SECONDS for at in circuit.failures)
            return Condition("closed", recent, "")
        state: State = "open" if now < circuit.open_until else "half_open"
        return Condition(state, len(circuit.failures), circuit.opened_at)

    def _open(self, circuit: _Circuit, now: float) -> None:
        circuit.open_until = now + OPEN_SECONDS
        circuit.opened_at = self._clock.utc().isoformat()
        circuit.probing = False
        circuit.era += 1

    def _close(self, circuit: _Circuit) -> None:
        circuit.failures.clear()
        if circuit.open_until is not None:
            circuit.open_until, circuit.opened_at, circuit.probing = None, "", False
            circuit.era += 1
