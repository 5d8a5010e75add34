"""The policy in force: what people enabled, read at once and remembered by its digest.

What is read is compared with the chained history of all changes before it decides anything.
"""

from __future__ import annotations

import hashlib
import json
import logging
from functools import lru_cache

from django.db import connection
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from runs.models.policy import PolicyHead, PolicyRule, rules_by_history, stored_rule
from tools.policy import CODE_ONLY, Policy, StoredRule, version_of

HEAD = 1  # the key of the only row of PolicyHead
CONTRADICTED = "rules-contradict-their-history"
# The digest of what people wrote, and the end of the history that it has to follow from: one text, so that
# it can be read together with other things. Nothing at all before the first rule.
IN_FORCE_SQL = (
    "COALESCE((SELECT digest FROM runs_policyhead WHERE id = %s), '') || ' ' || "
    "COALESCE((SELECT hash FROM runs_policychange ORDER BY id DESC LIMIT 1), '')"
)
logger = logging.getLogger(__name__)


class _ChangedMeanwhile(Exception):
    """Between two statements somebody changed a rule."""


class _Contradicted(Exception):
    """What is in force is not what its history says; the message says where."""


def policy_in_force(*, hold: bool = False, known: str | None = None) -> Policy:
    """The rules in force and the grants that can be used now, by the clock of the database.

    One query while nothing changed, and one more while there are grants. With `hold`, inside a transaction,
    nobody changes a rule until it ends. `known` is what `IN_FORCE_SQL` gave where a transaction that keeps
    everybody else from writing has read it: it need not be read again.
    """
    while True:
        digest, tip = (_look(hold=hold) if known is None else known).split(" ")
        try:
            policy = _of_digest(digest, tip) if digest or tip else CODE_ONLY
        except _ChangedMeanwhile:
            known = None
            continue
        except _Contradicted as found:
            logger.error("The rules in force contradict their history: %s. See manage.py verifyaudit.", found)
            return _nothing_runs(str(found))
        return _with_usable_grants(policy)


def _look(*, hold: bool) -> str:
    """The digest of what people wrote and the end of its history, with a space between."""
    with connection.cursor() as cursor:
        if hold and connection.vendor == "postgresql":
            held = "SELECT 1 FROM runs_policyhead WHERE id = %s FOR SHARE"
            cursor.execute(held, [HEAD])
            if cursor.fetchone() is None:  # before the first rule there is no row to hold
                PolicyHead.objects.bulk_create(
                    [PolicyHead(pk=HEAD, digest="", rules="[]")], ignore_conflicts=True
                )
                cursor.execute(held, [HEAD])
        cursor.execute("SELECT " + IN_FORCE_SQL, [HEAD])
        return str(cursor.fetchone()[0])


def usable_grants() -> QuerySet[PolicyRule]:
    """Grants with uses and time left, by the clock of the database."""
    return PolicyRule.objects.filter(
        is_grant=True, active__isnull=False, used__lt=F("uses"), expires_at__gt=Now()
    )


def _with_usable_grants(policy: Policy) -> Policy:
    grants = [rule.key for rule in policy.rules if rule.kind == "grant"]
    if not grants:
        return policy
    usable = set(usable_grants().filter(pk__in=grants).values_list("pk", flat=True))
    if len(usable) == len(grants):
        return policy
    kept = tuple(rule for rule in policy.rules if rule.kind != "grant" or rule.key in usable)
    return Policy(kept, policy.version)


@lru_cache(maxsize=8)
def _of_digest(digest: str, tip: str) -> Policy:
    """The rules of this digest, at this end of the history: together they stand for what was compared."""
    head = PolicyHead.objects.filter(pk=HEAD, digest=digest).first()
    if head is None:
        raise _ChangedMeanwhile
    if problem := _not_recorded(head):
        raise _Contradicted(problem)
    rows = json.loads(head.rules)
    rules = tuple(stored_rule(key, change, name, text) for key, change, name, text in rows)
    return Policy(rules, version_of(digest))


def _not_recorded(head: PolicyHead) -> str:
    """Why this text is not what the history of rules says is in force; "" when it is."""
    listed = json.loads(head.rules)
    if head.digest != (hashlib.sha256(head.rules.encode()).hexdigest() if listed else ""):
        return "the rules in force do not give their digest"
    said, problems = rules_by_history()
    rows = {row[0]: row[1:] for row in listed}
    for key, change in said.items():
        recorded = [change.pk, change.rule.name, change.content]
        may_be_left_out = change.rule.is_grant  # grants that ran out leave with the next change
        if rows.pop(key, None if may_be_left_out else "") not in (recorded, None):
            problems.append(f"{change.rule.name} decides otherwise than its history says")
    problems += [f"{row[1]} decides, and its history does not say so" for row in rows.values()]
    return problems[0] if problems else ""


def _nothing_runs(problem: str) -> Policy:
    """While nobody knows what people decided, nothing that has an effect may run."""
    reason = f"The rules in force contradict their history ({problem}). An administrator has to look at them."
    rules = tuple(
        StoredRule(key=0, change=0, name=CONTRADICTED, kind="deny", reason=reason, effect=effect)
        for effect in ("write", "destructive")
    )
    return Policy(rules, version_of(CONTRADICTED))
