"""What was rolled out in the shop: two weeks of history, then what actions did."""

from __future__ import annotations

from tools.estate import shop
from tools.estate.scenario import PastDeployment
from tools.estate.timeline import Action
from tools.estate.world import Estate
from tools.records import Commit, Deployment

FIRST_OF_ACTIONS = 500


def deployments(estate: Estate, until: float) -> list[Deployment]:
    """All deployments that had started by `until` (seconds since 1970), newest first."""
    found = [_past(estate, past, until) for past in estate.scenario.deployments]
    for index, action in enumerate(estate.actions):
        if action.kind in ("revert", "scale"):
            found.append(_done(estate, index, action, until))
    found = [one for one in found if one.started_at <= until]
    return sorted(found, key=lambda one: (-one.started_at, one.deployment_id))


def _past(estate: Estate, past: PastDeployment, until: float) -> Deployment:
    started = estate.alert_at - 60 * past.minutes_before
    status = "succeeded" if past.instances is None else f"canary on {past.instances} instances"
    for action in estate.actions:
        reverted = action.kind == "revert" and action.detail("deployment_id") == past.deployment_id
        if reverted and estate.alert_at + action.at <= until:
            status = "reverted"
    return Deployment(
        deployment_id=past.deployment_id,
        service=past.service,
        environment="production",
        kind=past.kind,
        version=past.version,
        previous_version=past.previous,
        status=status,
        started_at=started,
        finished_at=started + shop.ROLLOUT_SECONDS + 13,
        author=past.author,
        commits=tuple(Commit(sha, subject) for sha, subject in past.commits),
        files=past.files,
        revert_target=past.previous,
    )


def _done(estate: Estate, index: int, action: Action, until: float) -> Deployment:
    started = estate.alert_at + action.at
    took = shop.ROLLOUT_SECONDS if action.kind == "revert" else shop.SCALE_SECONDS
    finished = started + took if started + took <= until else None
    if action.kind == "revert":
        version, previous = str(action.detail("version")), str(action.detail("from_version"))
        subject = f"revert of {action.detail('deployment_id')}"
    else:
        version, previous = (
            f"{action.detail('replicas')} replicas",
            f"{action.detail('from_replicas')} replicas",
        )
        subject = f"scale {action.service} from {previous} to {version}"
    return Deployment(
        deployment_id=f"dep_{FIRST_OF_ACTIONS + index:04d}",
        service=action.service,
        environment="production",
        kind=action.detail("deployment_kind", "code") if action.kind == "revert" else "scale",
        version=version,
        previous_version=previous,
        status="succeeded" if finished else "in progress",
        started_at=started,
        finished_at=finished,
        author="agentops",
        commits=(Commit("", subject),),
        revert_target=previous,
    )
