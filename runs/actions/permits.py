"""What lets a call start that no person decided on: the rule that allows it now, or one use of a grant."""

from __future__ import annotations

import logging

from django.db.models import F
from django.db.models.functions import Now

from runs.actions.change import Change, Lease
from runs.actions.proving import why_not_given, why_not_proposed
from runs.actions.settling import Refusal, contradiction, settle_refused, settle_void
from runs.models import GrantUse, PolicyRule, Step, StepStatus
from runs.models.in_force import policy_in_force, usable_grants
from tools.policy import Policy, Verdict

logger = logging.getLogger(__name__)
NOT_ALLOWED = "It has no approval. It did not run."


def rules_now(lease: Lease, *, hold: bool = False) -> Policy:
    """The rules in force, read once for all that a driver records together.

    With `hold` they are read again, and nobody changes them until it is committed: an effect starts by them.
    """
    current = lease.memory.open
    if current is None or current.rules is None or hold:
        rules = policy_in_force(hold=hold, known=current.rules_known if current else None)
        if current is not None:
            current.rules = rules
        return rules
    return current.rules


def may_start(current: Change, step: Step, verdict: Verdict | None) -> bool:
    """Whether this call with an effect, on which nobody voted, may start under the rules that hold now.

    Otherwise it is settled here, or proposed again where people have to be asked by now. A grant loses one
    use with the first start, in the same transaction; a further start of the same call needs no other.
    """
    if unproven := why_not_proposed(current, step):
        settle_void(current, step, contradiction(unproven))
        return False
    if verdict is None:
        if step.effect != "destructive":
            return True
        settle_refused(current, step, Refusal("denied", NOT_ALLOWED))
        return False
    if verdict.kind == "allow" and verdict.grant is None:
        return True
    used = GrantUse.objects.filter(step=step).first() if step.attempt > 1 else None
    if used is not None and verdict.kind != "deny" and _still_given(used.grant_id):
        return True
    if verdict.grant is not None and used is None and _use(current, step, verdict.grant):
        return True
    if step.attempt > 1 or verdict.kind == "deny":
        settle_void(current, step, Refusal("denied", f"{verdict.reason} It did not run.", verdict))
    else:
        _propose_again(current, step, verdict)
    return False


def _still_given(grant: int) -> bool:
    """Neither revoked nor past its time; that its uses are gone does not matter to a call that took one."""
    still = PolicyRule.objects.filter(pk=grant, active__isnull=False, expires_at__gt=Now()).exists()
    return still and not why_not_given(grant)


def _use(current: Change, step: Step, grant: int) -> bool:
    """Take one use, if there is one left: exactly one START gets it, however many workers try."""
    if problem := why_not_given(grant):
        logger.error("grant %s contradicts its record: %s", grant, problem)
        return False
    taken = usable_grants().filter(pk=grant).update(used=F("used") + 1)
    if not taken:
        return False
    row = PolicyRule.objects.get(pk=grant)
    GrantUse.objects.create(grant=row, run=current.run, step=step, number=row.used, at=current.now)
    current.event("grant.used", step=step.seq, grant=row.pk, rule=row.name, number=row.used, uses=row.uses)
    return True


def _propose_again(current: Change, step: Step, verdict: Verdict) -> None:
    """The rules changed since it was allowed, or the last use of its grant went to another call."""
    step.status = StepStatus.PROPOSED
    current.update(step, ["status"])
    reason = "What allowed it does not hold any more, so it is decided again."
    current.event("call.reconsidered", step=step.seq, reason=reason, rule=verdict.rule)
