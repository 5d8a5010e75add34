"""What the incident tools need from wherever the data comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tools.records import Deployment, GroupBy, LogLine, MetricDefinition, Series


@dataclass(frozen=True)
class PoolFacts:
    """The connection pool of a service right now."""

    replicas: int
    size: int
    in_use: int
    idle_in_transaction: int
    oldest_seconds: float  # age of the oldest open transaction
    server_used: int
    server_limit: int


@dataclass(frozen=True)
class Performed:
    """An action that was recorded. `answer` is what was said about it before, or "" the first time."""

    at: float
    answer: str
    details: dict[str, Any]


class Backend(Protocol):
    """A source of logs, metrics and deployments that can also be changed.

    All times are seconds since 1970 UTC.

    Everything raises ToolError when it fails. Service and metric names are checked by the caller.
    """

    name: str
    environment: str
    log_retention_seconds: float

    def now(self) -> float:
        """The time of the observed system."""
        ...

    def alerted_at(self) -> float:
        """When the alert fired, or when the question was asked."""
        ...

    def services(self) -> list[str]:
        """The names of all services."""
        ...

    def log_lines(self, start: float, end: float, service: str | None, min_level: str) -> list[LogLine]:
        """Lines with start <= at < end, oldest first."""
        ...

    def metrics(self, service: str) -> dict[str, MetricDefinition]:
        """The catalogue of one service."""
        ...

    def series(
        self, service: str, metric: str, start: float, end: float, group_by: GroupBy, most_samples: int
    ) -> list[Series]:
        """Samples of the range, evenly spaced, at most `most_samples` per series."""
        ...

    def value(self, service: str, metric: str, at: float) -> float:
        """One sample; `at` may be ahead of now where waiting costs nothing."""
        ...

    def deployments(self) -> list[Deployment]:
        """All known deployments, newest first."""
        ...

    def pool(self, service: str) -> PoolFacts:
        """The pool of a service that has one."""
        ...

    def replicas(self, service: str) -> int:
        """How many instances are asked for."""
        ...

    def replica_limit(self, service: str) -> int:
        """How many instances the service may have; 0 when tools may not change it."""
        ...

    def find_action(self, key: str) -> Performed | None:
        """What was done under this idempotency key."""
        ...

    def perform(self, kind: str, service: str, details: dict[str, Any], key: str) -> Performed:
        """Do it once: a second call with the same key changes nothing and returns the first one.

        A ToolError says with `may_have_acted` when it is not certain that nothing was done.
        """
        ...

    def conclude(self, key: str, answer: str, until: float) -> None:
        """Keep the answer of an action, and let the system's clock reach `until`."""
        ...

    def pause(self, seconds: float) -> None:
        """Take about as long as a real backend would."""
        ...
