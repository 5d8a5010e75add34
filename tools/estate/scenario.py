"""What makes one scenario: releases that misbehave, a history, an alert, and the truth about it.

Everything in `Truth` is for tests and grading. No tool reads it, and nothing in the names or texts that
a tool can return repeats it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tools.estate import shop
from tools.records import DeploymentKind


@dataclass(frozen=True)
class Behaviour:
    """How one version of a service misbehaves."""

    service: str
    version: str
    leaks_per_minute: float = 0.0  # database connections that are never given back
    failing_share: float = 0.0  # of the requests that reach this version


@dataclass(frozen=True)
class PastDeployment:
    """A rollout before the alert. `instances` below the service's size is a canary that was left so."""

    number: int
    minutes_before: float
    service: str
    version: str
    previous: str
    author: str
    commits: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, int, int], ...]
    kind: DeploymentKind = "code"
    instances: int | None = None

    @property
    def deployment_id(self) -> str:
        return f"dep_{self.number:04d}"


@dataclass(frozen=True)
class Condition:
    """A metric that must stay below or above a value for the last minutes."""

    service: str
    metric: str
    comparison: Literal["below", "above"]
    value: float
    minutes: float = 3.0


@dataclass(frozen=True)
class Truth:
    """The answer key: never shown to an agent."""

    component: str
    kind: str
    trigger: str
    chain: tuple[str, ...]
    required_evidence: tuple[str, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    recovery: tuple[Condition, ...]


@dataclass(frozen=True)
class Scenario:
    """One simulated situation. `swing` is how far traffic moves over a day, as a share."""

    id: str
    title: str
    alert: str
    alert_words: str
    truth: Truth
    behaviours: tuple[Behaviour, ...] = ()
    deployments: tuple[PastDeployment, ...] = ()
    swing: float = 0.2
    api_hold_seconds: float = shop.API_HOLD_SECONDS
    export_connections: float = 1.0  # api connections that the hourly export of reports keeps busy
    starts_minutes_before: float = 0.0  # nothing remembers anything before this
