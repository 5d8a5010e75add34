"""get_metrics: one metric of one service, with the numbers that make it readable."""

from __future__ import annotations

import statistics as basic
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from tools.backends.base import Backend
from tools.base import Result, ToolContext, ToolError, tool
from tools.incident import asking, statistics
from tools.incident.times import Resolved, TimeRange, duration, iso, resolve
from tools.records import GroupBy, MetricDefinition, Series

CompareTo = Literal["none", "previous_period", "one_day_ago", "one_week_ago"]

MOST_POINTS = 60
MOST_SAMPLES = 360
WIDEST = 14 * 86400.0
DEFAULT_SECONDS = 3600.0
_SHIFTS = {"one_day_ago": 86400.0, "one_week_ago": 604800.0}


def _headline(arguments: dict[str, Any]) -> str:
    line = f"{arguments.get('service_name', '')} {arguments.get('metric', '')}"
    if arguments.get("group_by") not in (None, "none"):
        line += f" by {arguments['group_by']}"
    if arguments.get("compare_to") not in (None, "none"):
        line += f", compared with {str(arguments['compare_to']).replace('_', ' ')}"
    return line


@tool(effect="read", describe=_headline, deadline_seconds=20, backend="estate")
def get_metrics(
    context: ToolContext,
    *,
    service_name: str,
    metric: Annotated[
        str,
        Field(
            description="Catalogue name (db_pool_in_use, error_rate, latency_p95 ...). Unknown names return "
            "the nearest names and the catalogue for the service."
        ),
    ],
    time_range: Annotated[
        TimeRange | None, Field(description="Omit for the current value plus a one-hour summary")
    ] = None,
    step_seconds: Annotated[
        int | None, Field(description="Omit to have it chosen; at most 60 points come back per series")
    ] = None,
    group_by: GroupBy | None = None,
    compare_to: CompareTo | None = None,
) -> Result:
    """Read one metric of one service over time.

    Each series comes with current, min, max, avg and p95 values, its trend, and step_change_at: when a step
    happened or a rise began. Compare that time with list_recent_deployments. compare_to adds the same
    statistics of an earlier period as baseline, which tells a daily or hourly habit from an incident.
    group_by=version or instance shows whether only some instances are affected.
    """
    backend = asking.connect(context)
    backend.pause(0.35)
    service = asking.known_service(backend, service_name, "service_name")
    name = asking.known_metric(backend, service, metric)
    span, warnings = _affordable(resolve(time_range, backend.now(), DEFAULT_SECONDS))
    question = _Question(service, backend.metrics(service)[name], span, group_by or "none")
    return _answer(backend, question, step_seconds, compare_to or "none", warnings)


@dataclass(frozen=True)
class _Question:
    """Which series to read."""

    service: str
    definition: MetricDefinition
    span: Resolved
    group_by: GroupBy

    def series(self, backend: Backend, earlier: float = 0.0) -> list[Series]:
        """The series that have samples, of the range or of the same range so many seconds earlier."""
        start, end = self.span.start - earlier, self.span.end - earlier
        found = backend.series(self.service, self.definition.name, start, end, self.group_by, MOST_SAMPLES)
        return [one for one in found if any(value is not None for _, value in one.samples)]


def _answer(
    backend: Backend,
    question: _Question,
    step_seconds: int | None,
    compare_to: CompareTo,
    warnings: tuple[str, ...],
) -> Result:
    service, definition, span = question.service, question.definition, question.span
    found = question.series(backend)
    if not found:
        raise _no_samples(question)
    step, step_warnings = _step(step_seconds, span, len(found))
    limits = _thresholds(backend, service, definition)
    baselines = _baselines(backend, question, compare_to)
    described = [
        _described(definition, one, step, limits) | {"baseline": baselines.get(_label(one.labels))}
        for one in found
    ]
    shown = asking.fitting(described)
    return Result(
        summary=_summary(definition, service, described, span),
        data={
            "service": service,
            "metric": definition.name,
            "about": definition.about,
            "series": shown,
        },
        source=asking.source(backend),
        asked={"resolved_range": span.echo(), "step_seconds": step},
        truncation={
            "truncated": len(shown) < len(described),
            "returned": len(shown),
            "matched": len(described),
            "matched_is_exact": True,
        },
        warnings=span.warnings + warnings + step_warnings + _gaps(described),
        hints=_hints(described),
    )


def _no_samples(question: _Question) -> ToolError:
    what = f"{question.service} has no"
    if question.group_by != "none":
        message = f"{what} {question.group_by} to group {question.definition.name} by. Leave group_by out."
        return ToolError("invalid_argument", message)
    return ToolError(
        "unavailable", f"{what} samples of {question.definition.name} in this range. Ask for a wider one."
    )


def _affordable(span: Resolved) -> tuple[Resolved, tuple[str, ...]]:
    if span.seconds > WIDEST:
        return Resolved(span.end - WIDEST, span.end, span.warnings), (
            "Metrics are kept for 14 d; that is shown.",
        )
    return span, ()


def _step(wanted: int | None, span: Resolved, series: int) -> tuple[int, tuple[str, ...]]:
    """(seconds between points, a warning when the wanted step does not fit)."""
    most = max(4, MOST_POINTS // max(1, series))
    smallest = max(10, -(-int(span.seconds) // most // 10) * 10)
    if wanted is None:
        return smallest, ()
    if wanted < smallest:
        return smallest, (f"step_seconds {wanted} gives more than {most} points; {smallest} was used.",)
    return min(wanted, max(10, int(span.seconds))), ()


def _thresholds(backend: Backend, service: str, definition: MetricDefinition) -> dict[str, Any]:
    warn, crit = definition.warn, definition.crit
    if definition.limits_of and warn is not None and crit is not None:
        whole = backend.value(service, definition.limits_of, backend.now())
        warn, crit = round(warn * whole, 1), round(crit * whole, 1)
    return {"warn": warn, "crit": crit, "direction": definition.direction}


def _described(
    definition: MetricDefinition, series: Series, step: int, limits: dict[str, Any]
) -> dict[str, Any]:
    present = [(at, value) for at, value in series.samples if value is not None]
    values = [value for _, value in present]
    shape = statistics.shape(present, _floor(definition))
    change = 100 * (values[-1] - values[0]) / abs(values[0]) if values[0] else None
    return {
        "labels": series.labels,
        "unit": definition.unit,
        "current": values[-1],
        "min": min(values),
        "max": max(values),
        "avg": round(basic.fmean(values), 4),
        "p95": statistics.percentile(values, 0.95),
        "first": values[0],
        "last": values[-1],
        "change_pct": None if change is None else round(change, 1),
        "slope_per_min": round(shape.slope_per_minute, 4),
        "trend": shape.trend,
        "step_change_at": None if shape.changed_at is None else iso(shape.changed_at),
        "value_before_change": None if shape.before is None else round(shape.before, 4),
        "thresholds": limits,
        "baseline": None,
        "points": _points(series, step),
        "gaps": len(series.samples) - len(present),
        "last_sample_at": iso(present[-1][0]),
    }


def _floor(definition: MetricDefinition) -> float:
    """Moves that mean nothing: by unit, and a tenth of the way to the first limit."""
    by_unit = {"ratio": 0.01, "s": 0.05, "connections": 2.5, "sessions": 2.5, "requests": 2.5}
    limit = definition.warn if definition.direction == "above" and not definition.limits_of else None
    return max(by_unit.get(definition.unit, 0.0), 0.1 * (limit or 0.0))


def _points(series: Series, step: int) -> list[list[Any]]:
    """The last sample of every step; a missed scrape is left out."""
    points: dict[int, list[Any]] = {}
    for at, value in series.samples:
        if value is not None:
            points[int(at // step)] = [iso(at), value]
    return list(points.values())[-MOST_POINTS:]


def _baselines(backend: Backend, question: _Question, compare_to: CompareTo) -> dict[str, dict[str, Any]]:
    """The same statistics of an earlier period, by label."""
    if compare_to == "none":
        return {}
    shift = _SHIFTS.get(compare_to, question.span.seconds)
    found = {}
    for one in question.series(backend, shift):
        present = [(at, value) for at, value in one.samples if value is not None]
        values = [value for _, value in present]
        found[_label(one.labels)] = {
            "compare_to": compare_to,
            "range": [iso(question.span.start - shift), iso(question.span.end - shift)],
            "min": min(values),
            "max": max(values),
            "avg": round(basic.fmean(values), 4),
            "p95": statistics.percentile(values, 0.95),
            "trend": statistics.shape(present, _floor(question.definition)).trend,
        }
    return found


def _label(labels: dict[str, str]) -> str:
    return next((value for key, value in labels.items() if key != "service"), "")


def _summary(definition: MetricDefinition, service: str, series: list[dict[str, Any]], span: Resolved) -> str:
    if len(series) > 1:
        worst = (max if definition.direction == "above" else min)(series, key=lambda one: one["current"])
        return (
            f"{definition.name} of {service} in {len(series)} series; "
            f"{'highest' if definition.direction == 'above' else 'lowest'} now: "
            f"{_label(worst['labels'])} at {_written(worst['current'], definition)}."
        )
    one = series[0]
    text = f"{definition.name} of {service} is {_written(one['current'], definition)} now"
    if one["trend"] == "flat":
        text += f", flat over {duration(span.seconds)}"
    elif one["step_change_at"] and one["trend"] in ("rising", "falling"):
        text += f", {one['trend']} since {one['step_change_at'][11:16]}"
    elif one["step_change_at"]:
        text += f", {one['trend'].replace('_', ' ')} at {one['step_change_at'][11:16]}"
    else:
        text += f", {one['trend']}"
    if one["value_before_change"] is not None:
        text += f", {_written(one['value_before_change'], definition)} before"
    text += f"; min {_written(one['min'], definition)}, max {_written(one['max'], definition)}"
    return text + _against(one["current"], one["thresholds"], definition) + "."


def _against(current: float, limits: dict[str, Any], definition: MetricDefinition) -> str:
    for name, word in (("crit", "critical"), ("warn", "warning")):
        limit = limits[name]
        if limit is None:
            continue
        if (current >= limit) if limits["direction"] == "above" else (current <= limit):
            return f"; past the {word} limit of {_written(limit, definition)}"
    return ""


def _written(value: float, definition: MetricDefinition) -> str:
    if definition.unit == "ratio":
        return f"{100 * value:.3g} %"
    if definition.unit == "bytes":
        for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= size:
                return f"{value / size:.3g} {unit}"
    if definition.unit == "s":
        return duration(value) if value >= 1 else f"{value:.3g} s"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _gaps(series: list[dict[str, Any]]) -> tuple[str, ...]:
    missing = sum(one["gaps"] for one in series)
    return (f"{missing} samples are missing.",) if missing else ()


def _hints(series: list[dict[str, Any]]) -> tuple[str, ...]:
    changed = [one["step_change_at"] for one in series if one["step_change_at"]]
    if changed:
        return (f"next: list_recent_deployments to see what changed shortly before {min(changed)}",)
    if series[0]["trend"] == "oscillating":
        return ("compare_to=one_day_ago tells whether this is a habit",)
    return ()
