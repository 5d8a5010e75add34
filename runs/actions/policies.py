"""Rules and grants of people: drafted, back-tested, enabled, switched off. Each change is a version.

A rule or grant that lets calls run holds only after a back-test of exactly what it says. Whoever changes the
rules in force locks their one row; a call with an effect that starts holds it, so a start is before or after
a change, never beside it.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from runs.actions.change import one_writer
from runs.actions.errors import ActionError
from runs.actions.overtaken import withdraw_overtaken
from runs.actions.rule_contents import (
    InvalidRule,
    WantedRule,
    checked_content,
    checked_name,
    checked_why,
)
from runs.models import PolicyBacktest, PolicyChange, PolicyHead, PolicyRule, RuleKind, WhatChanged
from runs.models.in_force import HEAD
from runs.models.policy import LETS_RUN, change_hash, rule_digest

BACKTEST_HOLDS = timedelta(hours=24)


class MayNotChangePolicy(ActionError):
    """This person may look at the rules, but not change them."""


class UnknownRule(ActionError):
    """There is no such rule."""


class NeedsBacktest(ActionError):
    """What lets calls run is tested against recorded decisions first."""


def draft_rule(wanted: WantedRule, *, why: str, by: User, pk: int | None = None) -> PolicyRule:
    """Write a new rule or grant, or a new version of this rule, as a draft that decides nothing yet.

    Raises InvalidRule with every problem by field, MayNotChangePolicy and UnknownRule.
    """
    check_permission(by)
    content, why = _checked(wanted, why, is_new=pk is None)
    with one_writer(), transaction.atomic():
        _lock_head()
        rule = _new_rule(wanted) if pk is None else find_rule(pk)
        if rule.is_grant != (wanted.kind == RuleKind.GRANT):
            raise InvalidRule({"kind": "A rule stays a rule and a grant a grant. Write a new one instead."})
        if rule.is_grant and rule.expires_at is not None:
            raise ActionError("A grant that was given cannot be changed. Revoke it, and give another one.")
        rule.draft = _record(rule, WhatChanged.DRAFTED, content, by, why)
        rule.save(update_fields=["draft"])
    return rule


def enable_rule(
    pk: int, *, draft: int, why: str, by: User, backtest: int | None = None, accepts: bool = False
) -> PolicyRule:
    """Let this draft decide from now on, instead of an earlier version of its rule; a grant is given.

    What lets calls run needs a back-test of exactly this draft, not older than a day; `accepts` says that the
    rejections it overrides are wanted. Questions that wait and would now be asked otherwise are withdrawn.
    """
    check_permission(by)
    why = checked_why(why)
    now = timezone.now()
    with one_writer(), transaction.atomic():
        head = _lock_head()
        rule = find_rule(pk)
        if rule.draft is None or rule.draft.pk != draft:
            raise ActionError("The draft was changed since you opened this page. Look at it again first.")
        values, content = rule.draft.values, rule.draft.content
        tested = _backtest(rule, backtest, now, accepts) if values["kind"] in LETS_RUN else None
        rule.active = _record(rule, WhatChanged.ENABLED, content, by, why, tested)
        rule.draft = None
        if rule.is_grant:
            rule.uses, rule.expires_at = values["uses"], now + timedelta(seconds=values["seconds"])
        rule.save(update_fields=["active", "draft", "uses", "expires_at"])  # never what was used
        _rebuild(head, now)
    if not rule.is_grant:  # also a rule that allows: what its earlier version said of other calls is gone
        withdraw_overtaken(actor=by.get_username())
    return rule


def disable_rule(pk: int, *, why: str, by: User) -> PolicyRule:
    """Switch a rule off or revoke a grant: the next start is decided without it."""
    check_permission(by)
    why = checked_why(why)
    with one_writer(), transaction.atomic():
        head = _lock_head()
        rule = find_rule(pk)
        if rule.active is None:
            raise ActionError(f"{rule.name} is switched off already.")
        _record(rule, WhatChanged.DISABLED, rule.active.content, by, why)
        rule.active = None
        rule.save(update_fields=["active"])
        _rebuild(head, timezone.now())
    if not rule.is_grant:
        withdraw_overtaken(actor=by.get_username())
    return rule


def discard_draft(pk: int, *, why: str, by: User) -> PolicyRule:
    """Give up a draft; what holds stays, and the history keeps what was drafted."""
    check_permission(by)
    why = checked_why(why)
    with one_writer(), transaction.atomic():
        _lock_head()
        rule = find_rule(pk)
        if rule.draft is None:
            raise ActionError(f"{rule.name} has no draft.")
        _record(rule, WhatChanged.DISCARDED, rule.draft.content, by, why)
        rule.draft = None
        rule.save(update_fields=["draft"])
    return rule


def find_rule(pk: int) -> PolicyRule:
    """The rule or grant; raises UnknownRule."""
    rule = PolicyRule.objects.select_related("active", "draft").filter(pk=pk).first()
    if rule is None:
        raise UnknownRule("There is no such rule.")
    return rule


def check_permission(user: User) -> None:
    """Raises MayNotChangePolicy for a person who may only look."""
    if not (user.is_active and user.has_perm("runs.policy")):
        raise MayNotChangePolicy(
            "You may look but not change rules. Ask an administrator for the permission “policy”."
        )


def _checked(wanted: WantedRule, why: str, *, is_new: bool) -> tuple[str, str]:
    """Content and reason, or every problem of the form at once."""
    problems: dict[str, str] = {}
    content = text = ""
    try:
        if is_new and not (wanted.kind == RuleKind.GRANT and not wanted.name.strip()):
            checked_name(wanted.name)
    except InvalidRule as error:
        problems |= error.problems
    try:
        content = checked_content(wanted)
    except InvalidRule as error:
        problems |= error.problems
    try:
        text = checked_why(why)
    except InvalidRule as error:
        problems |= error.problems
    if problems:
        raise InvalidRule(problems)
    return content, text


def _new_rule(wanted: WantedRule) -> PolicyRule:
    is_grant = wanted.kind == RuleKind.GRANT
    name = wanted.name.strip()
    if is_grant and not name:
        name = f"grant-{(PolicyRule.objects.order_by('-pk').values_list('pk', flat=True).first() or 0) + 1}"
    if PolicyRule.objects.filter(name=name).exists():
        raise InvalidRule({"name": f"{name} exists already. Change that one, or choose another name."})
    return PolicyRule.objects.create(name=name, is_grant=is_grant)


def _record(
    rule: PolicyRule,
    what: WhatChanged,
    content: str,
    by: User,
    why: str,
    backtest: PolicyBacktest | None = None,
) -> PolicyChange:
    last = PolicyChange.objects.order_by("-pk").first()  # nobody else adds one: the head is locked
    change = PolicyChange(
        rule=rule,
        number=rule.changes.count() + 1,
        what=what,
        content=content,
        digest=rule_digest(rule.name, content),
        by=by,
        why=why,
        backtest=backtest,
        previous_hash=last.hash if last else "",
    )
    change.hash = change_hash(change, rule.name, by.get_username())
    change.save()
    return change


def _backtest(rule: PolicyRule, pk: int | None, now: datetime, accepts: bool) -> PolicyBacktest:
    """The back-test that this draft needs."""
    assert rule.draft is not None
    found = None if pk is None else PolicyBacktest.objects.filter(pk=pk, rule=rule).first()
    if found is None or found.digest != rule.draft.digest:
        raise NeedsBacktest(
            "What lets calls run is back-tested first, exactly as it is drafted. Do that now."
        )
    if now - found.at > BACKTEST_HOLDS:
        raise NeedsBacktest("This back-test is older than a day. Test the draft again.")
    if found.overridden and not accepts:
        times = (
            "1 call that a person rejected"
            if found.overridden == 1
            else f"{found.overridden} calls that people rejected"
        )
        raise NeedsBacktest(f"It would have let {times} run. Say that this is wanted, or narrow it.")
    return found


def _lock_head() -> PolicyHead:
    head, _ = PolicyHead.objects.select_for_update().get_or_create(
        pk=HEAD, defaults={"digest": "", "rules": "[]"}
    )
    return head


def _rebuild(head: PolicyHead, now: datetime) -> None:
    """Write down what is in force; grants that ran out leave with the next change."""
    active = PolicyRule.objects.filter(active__isnull=False).select_related("active").order_by("pk")
    rows = [
        [rule.pk, rule.active.pk, rule.name, rule.active.content]
        for rule in active
        if rule.active is not None
        and not (rule.is_grant and (rule.used >= rule.uses or (rule.expires_at or now) <= now))
    ]
    head.rules = json.dumps(rows)
    head.digest = hashlib.sha256(head.rules.encode()).hexdigest() if rows else ""
    head.save()
