"""revert_deployment: go back to what ran before."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tools.backends.base import Backend
from tools.base import Result, ToolContext, ToolError, tool
from tools.incident import asking, remediation
from tools.incident.deployments import risk_flags
from tools.incident.remediation import ExpectedEffect, Plan, Reason, chip
from tools.records import Deployment

MOST_COMMITS = 10


def _headline(arguments: dict[str, Any]) -> str:
    to = arguments.get("to_deployment_id")
    return f"Revert deployment {arguments.get('deployment_id', '')}" + (f" to {to}" if to else "")


def _plan(
    backend: Backend, deployment_id: str, to: str | None, acknowledged: bool, expected: ExpectedEffect
) -> Plan:
    known = backend.deployments()
    bad = _find(known, deployment_id, "deployment_id")
    remediation.changeable(backend, bad.service)
    line = [one for one in known if one.service == bad.service and one.kind == bad.kind]
    _current(line, bad)
    target_version = _target(known, line, bad, to)
    if "migration" in risk_flags(bad) and not acknowledged:
        raise ToolError(
            "forbidden",
            f"{bad.deployment_id} carried a schema migration, and the older code may not fit the new schema. "
            "Set acknowledge_migration to true only if that is known to work; else fix forward.",
        )
    headline = f"Revert {bad.service} from {bad.version} to {target_version}"
    return Plan(
        kind="revert",
        service=bad.service,
        details={
            "deployment_id": bad.deployment_id,
            "version": target_version,
            "from_version": bad.version,
            "code": bad.kind == "code",
            "deployment_kind": bad.kind,
        },
        done=headline.replace("Revert ", "Reverted "),
        execution={"deployment_id": bad.deployment_id, "from": bad.version, "to": target_version},
        card=remediation.card(
            backend,
            expected,
            headline=headline,
            of=bad.service,
            action="revert",
            chips=_chips(backend, bad),
            changes=_changes(backend, bad, target_version),
            basis={"target": target_version, **remediation.basis(backend, bad.service)},
        ),
    )


def _find(known: list[Deployment], deployment_id: str, argument: str) -> Deployment:
    for one in known:
        if one.deployment_id == deployment_id.strip():
            return one
    recent = ", ".join(f"{one.deployment_id} ({one.service} {one.version})" for one in known[:6])
    name = deployment_id[:40]
    raise ToolError("invalid_argument", f'{argument}: there is no deployment "{name}". Recent: {recent}.')


def _current(line: list[Deployment], bad: Deployment) -> None:
    """Raise ToolError unless `bad` is what its service runs now."""
    if bad.kind == "scale":
        raise ToolError("invalid_argument", f"{bad.deployment_id} is a scaling. Use scale_service instead.")
    if bad.status == "reverted":
        raise ToolError("stale_precondition", f"{bad.deployment_id} is already reverted. Nothing was done.")
    if line[0].deployment_id != bad.deployment_id:
        newest = line[0]
        raise ToolError(
            "stale_precondition",
            f"{bad.deployment_id} is not what {bad.service} runs now: {newest.deployment_id} "
            f"({newest.version}) came after it. Nothing was done; decide again with list_recent_deployments.",
        )


def _target(known: list[Deployment], line: list[Deployment], bad: Deployment, to: str | None) -> str:
    if not to:
        return bad.revert_target or bad.previous_version
    target = _find(known, to, "to_deployment_id")
    if target not in line or target.started_at >= bad.started_at:
        raise ToolError(
            "invalid_argument",
            f"to_deployment_id must be an earlier {bad.kind} deployment of {bad.service}. "
            "Leave it out for the one before.",
        )
    return target.version


def _chips(backend: Backend, bad: Deployment) -> list[dict[str, str]]:
    replicas = backend.replicas(bad.service)
    chips = [chip(f"{replicas} of {replicas} replicas"), chip("about 60 s, no downtime", "ok")]
    chips.append(chip("reversible, roll forward", "ok"))
    carries = "migration" in risk_flags(bad)
    chips.append(chip("carried a migration", "bad") if carries else chip("no migration", "ok"))
    count = len(bad.commits)
    chips.append(chip(f"{count} {'commit' if count == 1 else 'commits'} undone"))
    return chips


def _changes(backend: Backend, bad: Deployment, target: str) -> list[dict[str, Any]]:
    what = "image" if bad.kind == "code" else bad.kind.replace("_", " ")

    def name(version: str) -> str:
        return f"{what}: {bad.service}:{version}" if bad.kind == "code" else f"{what}: {version}"

    undone = [f"{commit.sha} {commit.subject}".strip() for commit in bad.commits[:MOST_COMMITS]]
    return [
        {
            "title": f"Deployment {bad.service}, {backend.environment}",
            "was": [name(bad.version)],
            "now": [name(target)],
            "same": [f"replicas: {backend.replicas(bad.service)}"],
        },
        {"title": "Commits undone", "was": undone, "now": [], "same": []},
    ]


def _dry_run(
    context: ToolContext,
    *,
    deployment_id: str,
    expected_effect: ExpectedEffect,
    to_deployment_id: str | None = None,
    acknowledge_migration: bool | None = None,
    **said: object,
) -> dict[str, Any]:
    backend = asking.connect(context)
    return _plan(backend, deployment_id, to_deployment_id, bool(acknowledge_migration), expected_effect).card


@tool(
    effect="destructive",
    idempotency="key",
    describe=_headline,
    dry_run=_dry_run,
    recheck=remediation.recheck,
    deadline_seconds=60,
    backend="estate",
)
def revert_deployment(
    context: ToolContext,
    *,
    deployment_id: Annotated[str, Field(description="the BAD deployment, from list_recent_deployments")],
    to_deployment_id: Annotated[str | None, Field(description="default: its predecessor")] = None,
    acknowledge_migration: Annotated[
        bool | None, Field(description="must be true when the deployment carried a schema migration")
    ] = None,
    reason: Reason,
    evidence_ids: list[str] | None = None,
    expected_effect: ExpectedEffect,
) -> Result:
    """Go back from a deployment to what ran before it. A person approves it first.

    It removes the cause when the symptom began with that deployment; check that before proposing it. It is
    refused when the deployment is no longer what runs. The rollout takes about a minute, and connections of
    the replaced instances close up to two minutes later. expected_effect is checked on the live metric.
    """
    return remediation.carry_out(
        context,
        expected_effect,
        lambda backend: _plan(
            backend, deployment_id, to_deployment_id, bool(acknowledge_migration), expected_effect
        ),
    )
