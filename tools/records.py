"""The shapes that every backend hands to the tools, whatever it reads from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

LEVELS = ("debug", "info", "warning", "error", "critical")
GroupBy = Literal["none", "instance", "version", "zone"]
DeploymentKind = Literal["code", "config", "migration", "infrastructure", "feature_flag", "scale"]


class LogLine(NamedTuple):
    """One log line. `at` is seconds since 1970 UTC; `message` and `fields` are untrusted text."""

    at: float
    level: str
    service: str
    instance: str
    version: str
    message: str
    trace_id: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class MetricDefinition:
    """What a metric of the catalogue means. `warn` and `crit` are None where there is no useful limit."""

    name: str
    unit: str
    about: str
    decimals: int = 3
    warn: float | None = None
    crit: float | None = None
    direction: Literal["above", "below"] = "above"
    additive: bool = False  # instances add up to the service
    limits_of: str = ""  # warn and crit are shares of this metric of the service


@dataclass(frozen=True)
class Series:
    """Samples of one metric: (seconds since 1970 UTC, value), oldest first; None is a missed scrape."""

    labels: dict[str, str]
    samples: list[tuple[float, float | None]]


@dataclass(frozen=True)
class Commit:
    """A commit of a deployment, as its author named it."""

    sha: str
    subject: str


@dataclass(frozen=True)
class Deployment:
    """One change that was rolled out. Times are seconds since 1970 UTC."""

    deployment_id: str
    service: str
    environment: str
    kind: DeploymentKind
    version: str
    previous_version: str
    status: str
    started_at: float
    finished_at: float | None
    author: str
    commits: tuple[Commit, ...] = ()
    files: tuple[tuple[str, int, int], ...] = ()  # path, lines added, lines removed
    reversible: bool = True
    revert_target: str = ""
