"""What a draft would have changed about decisions of people: looked at before it lets anything run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils import timezone

from runs.actions.change import one_writer
from runs.actions.errors import ActionError
from runs.actions.policies import check_permission, find_rule
from runs.models import Approval, ApprovalState, PolicyBacktest
from runs.models.in_force import policy_in_force
from runs.models.policy import LETS_RUN
from tools import policy
from tools.policy import Policy, StoredRule
from tools.registry import TOOLS

USUAL_DAYS = 30
MOST_DAYS = 365
MOST_DECISIONS = 2_000  # the newest of the period
MOST_SHOWN = 100  # rejections that it would have overridden
SOME_SHOWN = 20  # of the others
COLUMNS = ("pk", "state", "execute_by", "arguments", "environment", "run__agent", "step__name")


@dataclass
class Tally:
    """What would have become of the decisions that the draft is about."""

    looked_at: int = 0
    not_judged: int = 0
    decided_by_it: Counter[str] = field(default_factory=Counter)  # by how they ended
    against: list[int] = field(default_factory=list)  # people decided the opposite
    others: list[int] = field(default_factory=list)


def backtest_rule(pk: int, *, days: int, by: User) -> PolicyBacktest:
    """Try the draft of this rule on the decisions of the last so many days, and store what was found.

    The newest 2,000 decisions of the period are looked at. Grants in force do not count, nor does an earlier
    version of the same rule: what is stored is what the draft alone would have decided.
    """
    check_permission(by)
    if not 1 <= days <= MOST_DAYS:
        raise ActionError(f"A back-test looks at 1 to {MOST_DAYS} days.")
    rule = find_rule(pk)
    if rule.draft is None:
        raise ActionError(f"{rule.name} has no draft to test.")
    draft = rule.draft.stored(rule.name)
    policy_now = policy_in_force()
    since = timezone.now() - timedelta(days=days)
    decisions = Approval.objects.filter(decided_at__gte=since).order_by("-decided_at", "-pk")
    tally = tally_of(draft, policy_now, decisions)
    lets_run = draft.kind in LETS_RUN
    with one_writer():
        return PolicyBacktest.objects.create(
            rule=rule,
            digest=rule.draft.digest,
            policy_version=policy_now.version,
            days=days,
            looked_at=tally.looked_at,
            was_capped=tally.looked_at == MOST_DECISIONS and decisions.count() > MOST_DECISIONS,
            not_judged=tally.not_judged,
            let_through=tally.decided_by_it.total() if lets_run else 0,
            overridden=tally.decided_by_it[ApprovalState.REJECTED] if lets_run else 0,
            found=json.dumps(
                {"ended": dict(tally.decided_by_it), "against": tally.against, "others": tally.others}
            ),
            by=by,
        )


def tally_of(draft: StoredRule, policy_now: Policy, decisions: QuerySet[Approval]) -> Tally:
    """What this draft, beside the other rules, would have decided of these decisions. Nothing is written."""
    rules = tuple(one for one in policy_now.without(draft.key).rules if one.kind != "grant")
    beside = Policy((*rules, draft), policy_now.version)
    opposite = {"deny": "approved"}.get(draft.kind, "rejected" if draft.kind in LETS_RUN else "")
    tally = Tally()
    for pk, state, execute_by, arguments, environment, agent, name in decisions.values_list(*COLUMNS)[
        :MOST_DECISIONS
    ]:
        tally.looked_at += 1
        tool = TOOLS.get(name)
        if tool is None:
            tally.not_judged += 1
            continue
        verdict = policy.decide(tool, json.loads(arguments), agent, environment, beside)
        if verdict.change != draft.change:
            continue
        ended = str(ApprovalState.APPROVED) if execute_by is not None else state
        tally.decided_by_it[ended] += 1
        if ended == opposite and len(tally.against) < MOST_SHOWN:
            tally.against.append(pk)
        elif ended != opposite and len(tally.others) < SOME_SHOWN:
            tally.others.append(pk)
    return tally
