"""The policy in force: what people enabled, read at once and remembered by its digest."""

from __future__ import annotations

import json
from functools import lru_cache

from django.db import connection
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from runs.models.policy import PolicyHead, PolicyRule, stored_rule
from tools.policy import CODE_ONLY, Policy, version_of

HEAD = 1  # the key of the only row of PolicyHead


class _ChangedMeanwhile(Exception):
    """Between two statements somebody changed a rule."""


def policy_in_force(*, hold: bool = False, digest: str | None = None) -> Policy:
    """The rules in force and the grants that can be used now, by the clock of the database.

    One query while nothing changed, and one more while there are grants. With `hold`, inside a transaction,
    nobody changes a rule until it ends. `digest` is that of the head where a transaction that keeps everybody
    else from writing has read it: it need not be read again.
    """
    while True:
        digest = _digest(hold=hold) if digest is None else digest
        try:
            policy = _of_digest(digest) if digest else CODE_ONLY
        except _ChangedMeanwhile:
            digest = None
            continue
        return _with_usable_grants(policy)


def _digest(*, hold: bool) -> str:
    """The digest of what people wrote; "" when there are no rules of theirs."""
    lock = " FOR SHARE" if hold and connection.vendor == "postgresql" else ""
    while True:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT digest FROM runs_policyhead WHERE id = {HEAD}{lock}")  # noqa: S608
            row = cursor.fetchone()
        if row is not None or not lock:
            return row[0] if row else ""
        # Before the first rule there is no row to hold.
        PolicyHead.objects.bulk_create([PolicyHead(pk=HEAD, digest="", rules="[]")], ignore_conflicts=True)


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
def _of_digest(digest: str) -> Policy:
    head = PolicyHead.objects.filter(pk=HEAD, digest=digest).first()
    if head is None:
        raise _ChangedMeanwhile
    rows = json.loads(head.rules)
    rules = tuple(stored_rule(key, change, name, text) for key, change, name, text in rows)
    return Policy(rules, version_of(digest))
