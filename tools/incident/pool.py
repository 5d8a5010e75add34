"""restart_connection_pool: give a service fresh database connections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tools.backends.base import Backend, PoolFacts
from tools.base import Result, ToolContext, ToolError, tool
from tools.incident import asking, remediation
from tools.incident.remediation import ExpectedEffect, Plan, Reason, chip
from tools.incident.times import duration

Mode = Literal["terminate_idle_in_transaction", "drain_and_recycle", "terminate_all_of_service"]
DEFAULT_OLDER_THAN = 60
_MODES: dict[str, tuple[str, str]] = {
    "terminate_idle_in_transaction": (
        "sessions idle in transaction are terminated",
        "no open request is cut off",
    ),
    "drain_and_recycle": ("connections are drained and opened again", "a few requests may fail for 30 s"),
    "terminate_all_of_service": ("all sessions of the service are terminated", "open requests fail for 30 s"),
}


def _headline(arguments: dict[str, Any]) -> str:
    mode = str(arguments.get("mode", "")).replace("_", " ")
    return f"Restart the connection pool of {arguments.get('service_name', '')} ({mode})"


def _plan(backend: Backend, service_name: str, mode: str, older_than: int, expected: ExpectedEffect) -> Plan:
    service = remediation.changeable(backend, service_name)
    if "db_pool_size" not in backend.metrics(service):
        raise ToolError(
            "invalid_argument", f"{service} has no database connection pool. Choose another service."
        )
    facts, (what, risk) = backend.pool(service), _MODES[mode]
    matching = _matching(facts, mode)
    return Plan(
        kind="restart_pool",
        service=service,
        details={"mode": mode, "older_than_seconds": older_than, "sessions": matching},
        done=f"Restarted the connection pool of {service} ({matching} sessions ended)",
        execution={"service": service, "mode": mode, "sessions_terminated": matching},
        card=remediation.card(
            backend,
            expected,
            headline=f"Restart the connection pool of {service}",
            of=service,
            action="pool restart",
            chips=[
                chip(f"{matching} sessions end", "warn" if matching else ""),
                chip(f"oldest open {duration(facts.oldest_seconds)}"),
                chip(risk, "warn" if mode == "terminate_all_of_service" else ""),
                chip("the cause stays, if it is in the code", "warn"),
            ],
            changes=[
                {
                    "title": f"Connection pool of {service}, {backend.environment}",
                    "was": [
                        f"connections in use: {facts.in_use} of {facts.size}",
                        f"idle in transaction: {facts.idle_in_transaction}",
                    ],
                    "now": [f"{matching} {what}"],
                    "same": [f"replicas: {facts.replicas}", f"pool size: {facts.size}"],
                }
            ],
            basis=remediation.basis(backend, service),
            reversible=mode == "drain_and_recycle",  # a session that was cut off does not come back
        ),
    )


def _matching(facts: PoolFacts, mode: str) -> int:
    return facts.idle_in_transaction if mode == "terminate_idle_in_transaction" else facts.in_use


def _dry_run(
    context: ToolContext,
    *,
    service_name: str,
    mode: str,
    expected_effect: ExpectedEffect,
    older_than_seconds: int | None = None,
    **said: object,
) -> dict[str, Any]:
    older_than, _ = asking.clamped(older_than_seconds, DEFAULT_OLDER_THAN, 0, 86400, "older_than_seconds")
    return _plan(asking.connect(context), service_name, mode, older_than, expected_effect).card


@tool(
    effect="destructive",
    idempotency="key",
    describe=_headline,
    dry_run=_dry_run,
    recheck=remediation.recheck,
    deadline_seconds=60,
    backend="estate",
)
def restart_connection_pool(
    context: ToolContext,
    *,
    service_name: Annotated[str, Field(description="service whose pool is recycled")],
    mode: Mode,
    older_than_seconds: Annotated[
        int | None, Field(description="only sessions idle longer than this; default 60")
    ] = None,
    reason: Reason,
    evidence_ids: list[str] | None = None,
    expected_effect: ExpectedEffect,
) -> Result:
    """Free database connections of a service. A person approves it first.

    terminate_idle_in_transaction ends only sessions that hold a transaction open and do nothing;
    drain_and_recycle reopens all connections; terminate_all_of_service cuts everything off. It relieves a
    full pool but does not remove what fills it. expected_effect is checked afterwards on the live metric.
    """
    older_than, warnings = asking.clamped(
        older_than_seconds, DEFAULT_OLDER_THAN, 0, 86400, "older_than_seconds"
    )
    result = remediation.carry_out(
        context,
        expected_effect,
        lambda backend: _plan(backend, service_name, mode, older_than, expected_effect),
    )
    return remediation.with_warnings(result, warnings)
