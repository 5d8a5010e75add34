"""The estate at any moment: a pure function of seed, scenario, the alert's time and the actions so far.

States are computed tick by tick from the first moment that anything is remembered, and kept. Before that
moment, and long after the last event, a state follows from its own tick alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from tools.estate import model, shop
from tools.estate.model import State
from tools.estate.scenario import Scenario
from tools.estate.timeline import Action, Timeline

SETTLED_TICKS = 3 * 3600 // shop.TICK_SECONDS
KEPT_ESTATES = 8
KEPT_STATES = 2000


class Estate:
    """One simulated world. `offset` is always seconds after the alert, negative before it."""

    def __init__(self, scenario: Scenario, seed: int, alert_at: float, actions: tuple[Action, ...]) -> None:
        self.scenario = scenario
        self.seed = seed
        self.alert_at = alert_at
        self.actions = tuple(sorted(actions, key=lambda action: action.at))
        self.timeline = Timeline(scenario, self.actions)
        self._first = -int(scenario.starts_minutes_before * 60 / shop.TICK_SECONDS) - 1
        last_event = max([0.0, *(action.at for action in self.actions)])
        self._last = int(last_event // shop.TICK_SECONDS) + SETTLED_TICKS
        self._states: list[State] = []
        self._others: dict[int, State] = {}
        self._lock = threading.Lock()

    def tick_of(self, offset: float) -> int:
        """The tick that this moment belongs to."""
        return int(offset // shop.TICK_SECONDS)

    def at(self, offset: float) -> State:
        """The state at this moment."""
        return self.state(self.tick_of(offset))

    def state(self, tick: int) -> State:
        """The state of one tick."""
        if self._first <= tick <= self._last:
            return self._remembered(tick)
        found = self._others.get(tick)
        if found is None:
            before = model.calm() if tick < self._first else self._remembered(self._last)
            found = self._step(tick, before)
            if len(self._others) >= KEPT_STATES:
                self._others.clear()
            self._others[tick] = found
        return found

    def _remembered(self, tick: int) -> State:
        index = tick - self._first
        with self._lock:
            while len(self._states) <= index:
                before = self._states[-1] if self._states else model.calm()
                self._states.append(self._step(self._first + len(self._states), before))
            return self._states[index]

    def _step(self, tick: int, before: State) -> State:
        return model.step(self.scenario, self.timeline, self.seed, self.alert_at, tick, before)


_kept: OrderedDict[tuple[str, int, float, tuple[Action, ...]], Estate] = OrderedDict()
_kept_lock = threading.Lock()


def estate(scenario: Scenario, seed: int, alert_at: float, actions: tuple[Action, ...]) -> Estate:
    """The estate for these facts; the most recently used ones are kept with what they computed."""
    key = (scenario.id, seed, alert_at, actions)
    with _kept_lock:
        found = _kept.get(key)
        if found is None:
            found = _kept[key] = Estate(scenario, seed, alert_at, actions)
        _kept.move_to_end(key)
        while len(_kept) > KEPT_ESTATES:
            _kept.popitem(last=False)
        return found
