"""Questions that wait while the rules become stricter: they are withdrawn at once, not at the start."""

from __future__ import annotations

import json
import logging

from django.db import InterfaceError, OperationalError

from runs.actions.approvals import withdraw
from runs.actions.change import change
from runs.actions.settling import Refusal
from runs.models import Approval, ApprovalState
from runs.models.in_force import policy_in_force
from tools import policy, registry

logger = logging.getLogger(__name__)


def withdraw_overtaken(*, actor: str) -> int:
    """Withdraw each open question that is denied now, or that asks too little of people; how many.

    One that is not reached, because this process dies, is stopped by the same look at START.
    """
    withdrawn = 0
    pending = Approval.objects.filter(state=ApprovalState.PENDING).values_list("pk", "run_id")
    for approval_id, run_id in list(pending):
        try:
            withdrawn += _withdraw_one(approval_id, run_id, actor)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # one row that cannot be written must not leave all others as they are
            logger.exception("approval %s could not be looked at again", approval_id)
    return withdrawn


def _withdraw_one(approval_id: int, run_id: int, actor: str) -> bool:
    with change(run_id, actor=actor) as current:
        approval = Approval.objects.select_for_update().select_related("step").get(pk=approval_id)
        tool = registry.find(approval.step.name)
        if not approval.is_open or tool is None:
            return False
        now = policy.decide(
            tool,
            json.loads(approval.arguments),
            current.run.agent,
            approval.environment,
            policy_in_force(),
        )
        stricter = policy.what_became_stricter(approval.ask, now)
        if not stricter:
            return False
        message = f"The rules changed while it waited. {stricter} It did not run, and nobody refused it. " + (
            "Do not propose it again." if now.kind == "deny" else "Propose it again if it is still right."
        )
        kind = "denied" if now.kind == "deny" else str(ApprovalState.INVALIDATED)
        withdraw(current, approval, Refusal(kind, message, now))
    return True
