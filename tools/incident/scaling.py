"""scale_service: run more or fewer instances of a service."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tools.backends.base import Backend
from tools.base import Result, ToolContext, ToolError, tool
from tools.incident import asking, remediation
from tools.incident.remediation import ExpectedEffect, Plan, Reason, Tone, chip

LARGEST_FACTOR = 2


def _headline(arguments: dict[str, Any]) -> str:
    return f"Scale {arguments.get('service_name', '')} to {arguments.get('replicas', '?')} replicas"


def _plan(
    backend: Backend, service_name: str, replicas: int, expected_current: int | None, expected: ExpectedEffect
) -> Plan:
    service = remediation.changeable(backend, service_name)
    current, most = backend.replicas(service), backend.replica_limit(service)
    if expected_current is not None and expected_current != current:
        raise ToolError(
            "stale_precondition",
            f"{service} has {current} replicas, not {expected_current}. It was not scaled; look again first.",
        )
    if not 1 <= replicas <= most:
        raise ToolError("invalid_argument", f"{service} may have 1 to {most} replicas, not {replicas}.")
    if replicas > LARGEST_FACTOR * current:
        raise ToolError(
            "invalid_argument",
            f"{service} has {current} replicas; at most {LARGEST_FACTOR * current} are allowed in one step.",
        )
    if replicas == current:
        raise ToolError("conflict", f"{service} already has {current} replicas; there is nothing to do.")
    chips, changes = _facts(backend, service, current, replicas)
    return Plan(
        kind="scale",
        service=service,
        details={"replicas": replicas, "from_replicas": current},
        done=f"Scaled {service} from {current} to {replicas} replicas",
        execution={"service": service, "replicas_before": current, "replicas": replicas},
        card=remediation.card(
            backend,
            expected,
            headline=f"Scale {service} from {current} to {replicas} replicas",
            of=service,
            action="scaling",
            chips=chips,
            changes=changes,
            basis=remediation.basis(backend, service),
        ),
    )


def _facts(
    backend: Backend, service: str, current: int, replicas: int
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    was, now = [f"replicas: {current}"], [f"replicas: {replicas}"]
    chips = [chip(f"{current} to {replicas} replicas"), chip("about 30 s")]
    if "db_pool_size" in backend.metrics(service):
        facts = backend.pool(service)
        per_replica = facts.size // max(1, facts.replicas)
        needed = facts.server_used + per_replica * (replicas - current)
        was.append(f"connections it may open: {facts.size}")
        now.append(f"connections it may open: {per_replica * replicas}")
        tone: Tone = (
            "bad" if needed > facts.server_limit else "warn" if needed > 0.9 * facts.server_limit else "ok"
        )
        chips.append(chip(f"up to {max(0, needed)} of {facts.server_limit} database connections", tone))
    title = f"Service {service}, {backend.environment}"
    return chips, [{"title": title, "was": was, "now": now, "same": ["version and configuration"]}]


def _dry_run(
    context: ToolContext,
    *,
    service_name: str,
    replicas: int,
    expected_effect: ExpectedEffect,
    expected_current_replicas: int | None = None,
    **said: object,
) -> dict[str, Any]:
    backend = asking.connect(context)
    return _plan(backend, service_name, replicas, expected_current_replicas, expected_effect).card


@tool(
    effect="destructive",
    idempotency="key",
    describe=_headline,
    dry_run=_dry_run,
    recheck=remediation.recheck,
    deadline_seconds=60,
    backend="estate",
)
def scale_service(
    context: ToolContext,
    *,
    service_name: str,
    replicas: Annotated[int, Field(description="absolute target, not a delta")],
    expected_current_replicas: Annotated[
        int | None, Field(description="refused as stale if reality differs at execution")
    ] = None,
    reason: Reason,
    evidence_ids: list[str] | None = None,
    expected_effect: ExpectedEffect,
) -> Result:
    """Run more or fewer instances of a service. A person approves it first.

    It helps against load that the service itself cannot carry. Every instance of a service with a database
    pool opens its own connections, so more of them can fill the database for everybody. At most twice the
    current number in one step. expected_effect is checked afterwards on the live metric.
    """
    return remediation.carry_out(
        context,
        expected_effect,
        lambda backend: _plan(backend, service_name, replicas, expected_current_replicas, expected_effect),
    )
