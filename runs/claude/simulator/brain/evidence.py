"""What the tool results say, as typed values. Reads structure only: text in results is data, never advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runs.claude.simulator.brain.words import moment


@dataclass(frozen=True)
class Observation:
    """One tool call and its result. `turn` counts the model's turns from 1."""

    turn: int
    name: str
    input: Mapping[str, Any]
    envelope: Mapping[str, Any]
    is_error: bool

    @property
    def evidence_id(self) -> str:
        return str(self.envelope.get("evidence_id") or "")

    @property
    def data(self) -> Mapping[str, Any]:
        return _mapping(self.envelope.get("data"))

    @property
    def error_kind(self) -> str:
        kind = _mapping(self.envelope.get("error")).get("kind")
        return str(kind) if kind else ("failed" if self.is_error else "")

    @property
    def message(self) -> str:
        return str(_mapping(self.envelope.get("error")).get("message") or self.envelope.get("summary") or "")


@dataclass(frozen=True)
class Pattern:
    """A group of similar log lines."""

    text: str
    count: int
    level: str
    services: tuple[str, ...]
    versions: tuple[str, ...]
    first: datetime | None
    last: datetime | None
    evidence_id: str

    @property
    def is_failure(self) -> bool:
        return self.level in {"error", "critical"}


@dataclass(frozen=True)
class Deployment:
    """One change that was rolled out."""

    id: str
    service: str
    kind: str
    version: str
    previous: str
    at: datetime | None
    minutes_before_alert: float | None
    reversible: bool
    risk_flags: tuple[str, ...]
    status: str
    evidence_id: str

    @property
    def name(self) -> str:
        return f"{self.service} {self.version}"

    @property
    def carries_migration(self) -> bool:
        return self.kind == "migration" or any(flag.startswith("migration") for flag in self.risk_flags)


@dataclass(frozen=True)
class Reading:
    """One series of one metric over the range that was asked for."""

    service: str
    metric: str
    label: str  # the group of the series, "" for the whole service
    unit: str
    current: float | None
    low: float | None
    high: float | None
    average: float | None
    trend: str
    step_at: datetime | None  # the step, or when a rise or fall began
    before: float | None  # the level before that
    warn: float | None
    crit: float | None
    direction: str
    baseline: Mapping[str, Any]
    points: tuple[tuple[datetime, float], ...]
    evidence_id: str
    turn: int


def patterns(observation: Observation) -> Iterator[Pattern]:
    """The log patterns of a search_logs result."""
    for found in _list(observation.data.get("patterns")):
        yield Pattern(
            text=str(found.get("pattern") or found.get("sample_line") or ""),
            count=int(_number(found.get("count")) or 0),
            level=str(found.get("level") or ""),
            services=_names(found.get("services")),
            versions=_names(found.get("versions")),
            first=moment(found.get("first")),
            last=moment(found.get("last")),
            evidence_id=observation.evidence_id,
        )


def deployments(observation: Observation) -> Iterator[Deployment]:
    """The deployments of a list_recent_deployments result."""
    for found in _list(observation.data.get("deployments")):
        yield Deployment(
            id=str(found.get("deployment_id") or ""),
            service=str(found.get("service") or ""),
            kind=str(found.get("kind") or ""),
            version=str(found.get("version") or ""),
            previous=str(found.get("previous_version") or ""),
            at=moment(found.get("started_at")) or moment(found.get("finished_at")),
            minutes_before_alert=_number(found.get("minutes_before_alert")),
            reversible=found.get("reversible") is not False,
            risk_flags=_names(found.get("risk_flags")),
            status=str(found.get("status") or ""),
            evidence_id=observation.evidence_id,
        )


def readings(observation: Observation) -> Iterator[Reading]:
    """The series of a get_metrics result."""
    data = observation.data
    for found in _list(data.get("series")):
        limits = _mapping(found.get("thresholds"))
        labels = _mapping(found.get("labels"))
        group = str(observation.input.get("group_by") or "")
        yield Reading(
            service=str(data.get("service") or observation.input.get("service_name") or ""),
            metric=str(data.get("metric") or observation.input.get("metric") or ""),
            label=str(labels.get(group) or ""),
            unit=str(found.get("unit") or ""),
            current=_number(found.get("current")),
            low=_number(found.get("min")),
            high=_number(found.get("max")),
            average=_number(found.get("avg")),
            trend=str(found.get("trend") or ""),
            step_at=moment(found.get("step_change_at")) if found.get("step_change_at") else None,
            before=_number(found.get("value_before_change")),
            warn=_number(limits.get("warn")),
            crit=_number(limits.get("crit")),
            direction=str(limits.get("direction") or "above"),
            baseline=_mapping(found.get("baseline")),
            points=tuple(_points(found.get("points"))),
            evidence_id=observation.evidence_id,
            turn=observation.turn,
        )


def _points(found: Any) -> Iterator[tuple[datetime, float]]:
    for point in found if isinstance(found, list) else []:
        if isinstance(point, list) and len(point) == 2:
            at, value = moment(point[0]), _number(point[1])
            if at is not None and value is not None:
                yield at, value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _names(value: Any) -> tuple[str, ...]:
    return tuple(str(item) for item in value if item) if isinstance(value, list) else ()


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value == value and abs(value) != float("inf") else None


_number = number
