"""What every incident tool checks and says the same way."""

from __future__ import annotations

from typing import Any

from tools.backends import estate
from tools.backends.base import Backend
from tools.base import ToolContext, ToolError
from tools.bounding import dumps
from tools.incident.times import iso
from tools.schema import nearest

DATA_CHARACTERS = 6_500


def connect(context: ToolContext) -> Backend:
    """The backend of this run. The embedded estate is the only one so far."""
    return estate.connect(context)


def source(backend: Backend) -> dict[str, str]:
    """Where a result comes from and of when it is."""
    return {"backend": backend.name, "name": backend.environment, "as_of": iso(backend.now())}


def known_service(backend: Backend, name: str, argument: str = "service") -> str:
    """The name of a service that exists. Raises ToolError(unknown_service) with the list."""
    services = backend.services()
    cleaned = name.strip()
    if cleaned in services:
        return cleaned
    close = nearest(cleaned, services, 1)
    guess = f" Did you mean {close[0]}?" if close else ""
    raise ToolError(
        "unknown_service",
        f'{argument}: there is no service "{cleaned[:60]}".{guess} Services: {", ".join(services)}.',
        data={"services": services},
    )


def known_metric(backend: Backend, service: str, name: str, argument: str = "metric") -> str:
    """The name of a metric of the service. Raises ToolError(unknown_metric) with the catalogue."""
    metrics = backend.metrics(service)
    cleaned = name.strip()
    if cleaned in metrics:
        return cleaned
    close = nearest(cleaned, list(metrics))
    guess = f" Nearest: {', '.join(close)}." if close else ""
    raise ToolError(
        "unknown_metric",
        f'{argument}: {service} has no metric "{cleaned[:60]}".{guess} All of them: {", ".join(metrics)}.',
        data={"metrics": list(metrics), "nearest": close, "service": service},
    )


def fitting(items: list[dict[str, Any]], most_characters: int = DATA_CHARACTERS) -> list[dict[str, Any]]:
    """As many of the first items as fit in one result, at least one: the rest is left to the next page.

    The boundary would cut a larger result too, but then a cursor would skip what was cut.
    """
    kept: list[dict[str, Any]] = []
    size = 0
    for item in items:
        size += len(dumps(item)) + 1
        if kept and size > most_characters:
            break
        kept.append(item)
    return kept


def clamped(value: int | None, default: int, low: int, high: int, name: str) -> tuple[int, tuple[str, ...]]:
    """(the value within its limits, a warning when it had to be changed)."""
    if value is None:
        return default, ()
    kept = max(low, min(high, value))
    if kept == value:
        return kept, ()
    return kept, (f"{name} {value} is outside {low}-{high}; {kept} was used.",)
