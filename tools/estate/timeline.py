"""Which versions and how many instances run at a moment, from the deployments and the actions so far."""

from __future__ import annotations

import bisect
import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from tools.estate import shop
from tools.estate.scenario import Scenario

ActionKind = Literal["restart_pool", "scale", "revert"]


@dataclass(frozen=True)
class Action:
    """Something done to the estate, `at` seconds after the alert."""

    at: float
    kind: ActionKind
    service: str
    details: tuple[tuple[str, Any], ...] = ()

    def detail(self, name: str, default: Any = None) -> Any:
        """One of the details, or the default."""
        return dict(self.details).get(name, default)


@dataclass(frozen=True)
class Rollout:
    """From `at` on, `version` takes over `instances` instances of the service within a minute."""

    at: float
    version: str
    instances: int | None


@dataclass(frozen=True)
class Instance:
    """One replica of a service: where it stands and what it runs."""

    name: str
    version: str
    zone: str


@dataclass
class Timeline:
    """Versions and sizes over time. Offsets are seconds after the alert, negative before it."""

    scenario: Scenario
    actions: tuple[Action, ...]
    rollouts: dict[str, list[Rollout]] = field(default_factory=dict)
    scalings: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    _moments: dict[str, list[float]] = field(default_factory=dict, repr=False)
    _settled: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for past in sorted(self.scenario.deployments, key=lambda item: -item.minutes_before):
            if past.kind == "code":
                rollout = Rollout(-60.0 * past.minutes_before, past.version, past.instances)
                self.rollouts.setdefault(past.service, []).append(rollout)
        for action in self.actions:
            if action.kind == "revert" and action.detail("code", True):
                self.rollouts.setdefault(action.service, []).append(
                    Rollout(action.at, str(action.detail("version")), None)
                )
            if action.kind == "scale":
                self.scalings.setdefault(action.service, []).append(
                    (action.at, int(action.detail("replicas")))
                )
        for service in shop.SERVICES:
            moments = [rollout.at for rollout in self.rollouts.get(service, ())]
            self._moments[service] = sorted(moments + [at for at, _ in self.scalings.get(service, ())])

    def replicas_wanted(self, service: str, offset: float) -> int:
        """The size that was asked for."""
        size = shop.SERVICES[service].replicas
        for at, replicas in self.scalings.get(service, ()):
            if at <= offset:
                size = replicas
        return size

    def replicas_ready(self, service: str, offset: float) -> int:
        """The size that serves: new instances need a while to start, surplus ones leave at once."""
        started = self.replicas_wanted(service, offset - shop.SCALE_SECONDS)
        return min(started, self.replicas_wanted(service, offset))

    def slots(self, service: str, offset: float) -> tuple[str, ...]:
        """The version that each serving instance runs, oldest version first."""
        passed = bisect.bisect_right(self._moments[service], offset)
        if passed and offset - self._moments[service][passed - 1] <= shop.ROLLOUT_SECONDS:
            return self._slots(service, offset)
        key = (service, passed)
        if key not in self._settled:
            self._settled[key] = self._slots(service, offset)
        return self._settled[key]

    def _slots(self, service: str, offset: float) -> tuple[str, ...]:
        newest = shop.SERVICES[service].version
        slots = [newest] * shop.SERVICES[service].replicas
        for rollout in self.rollouts.get(service, ()):
            if rollout.at > offset:
                break
            newest = rollout.version
            others = [index for index, version in enumerate(slots) if version != newest]
            goal = len(slots) if rollout.instances is None else rollout.instances
            missing = max(0, goal - (len(slots) - len(others)))
            done = min(1.0, (offset - rollout.at) / shop.ROLLOUT_SECONDS)
            for index in list(reversed(others))[: round(done * missing)]:
                slots[index] = newest
        ready = self.replicas_ready(service, offset)
        # Added instances come up with the newest version, also while it is only a canary.
        return (*slots[:ready], *[newest] * (ready - len(slots)))

    def versions(self, service: str, offset: float) -> list[tuple[str, int]]:
        """(version, instances that serve it); versions that nothing runs are left out."""
        counts: dict[str, int] = {}
        for version in self.slots(service, offset):
            counts[version] = counts.get(version, 0) + 1
        return list(counts.items())

    def instances(self, service: str, offset: float) -> list[Instance]:
        """The instances that serve now, with stable names, oldest version first."""
        return _instances(service, self.slots(service, offset))

    def is_changing(self, service: str, offset: float) -> bool:
        """Whether instances come or go about now."""
        return any(0 <= offset - at <= 2 * shop.ROLLOUT_SECONDS for at in self._moments[service])


@lru_cache(maxsize=256)
def _instances(service: str, slots: tuple[str, ...]) -> list[Instance]:
    seen: dict[str, int] = {}
    found = []
    for version in slots:
        index = seen[version] = seen.get(version, -1) + 1
        found.append(Instance(_name(service, version, index), version, shop.ZONES[index % 3]))
    return found


def _name(service: str, version: str, index: int) -> str:
    if shop.SERVICES[service].replicas == 1 and not shop.SERVICES[service].remediable:
        return f"{service}-0"
    digest = hashlib.blake2b(f"{service}/{version}".encode(), digest_size=5).hexdigest()
    pod = hashlib.blake2b(f"{service}/{version}/{index}".encode(), digest_size=5).hexdigest()[:5]
    return f"{service}-{digest[:9]}-{pod}"
