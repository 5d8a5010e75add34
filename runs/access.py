"""Who may do what. Everybody signed in may look; acting takes a permission."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AnonymousUser, User

from runs.models.eligible import why_not
from runs.reading.asks import Ask


@dataclass(frozen=True)
class Permission:
    """Yes, or no with the sentence a person is shown instead of the button."""

    allowed: bool
    why_not: str = ""

    def __bool__(self) -> bool:
        return self.allowed


YES = Permission(True)


def may_start(user: User | AnonymousUser) -> Permission:
    """May this person start runs, and steer those that exist?"""
    if user.has_perm("runs.start"):
        return YES
    return Permission(
        False, "You may look but not start runs. Ask an administrator for the permission “start”."
    )


def may_set_budgets(user: User | AnonymousUser) -> Permission:
    """May this person set, change and remove budgets that runs share?"""
    if user.has_perm("runs.budget"):
        return YES
    return Permission(
        False, "You may look but not set budgets. Ask an administrator for the permission “budget”."
    )


def may_set_prices(user: User | AnonymousUser) -> Permission:
    """May this person set prices, and reprice what was charged?"""
    if user.has_perm("runs.price"):
        return YES
    return Permission(
        False, "You may look but not set prices. Ask an administrator for the permission “price”."
    )


def may_decide(user: User | AnonymousUser) -> Permission:
    """May this person approve and reject tool calls at all?"""
    if user.has_perm("runs.decide"):
        return YES
    return Permission(False, "You may look but not decide. Ask an administrator for the permission “decide”.")


def may_notify(user: User | AnonymousUser) -> Permission:
    """May this person manage where people are told of approvals?"""
    if user.has_perm("runs.notify"):
        return YES
    return Permission(
        False, "You may look but not manage notifications. Ask an administrator for the permission “notify”."
    )


def may_change(user: User | AnonymousUser, ask: Ask) -> Permission:
    """May this person change the arguments of this call now?"""
    return may_decide(user) if ask.is_open else Permission(False, "It is decided, so nothing can be changed.")


def may_undo(user: User | AnonymousUser, ask: Ask) -> Permission:
    """May this person take this approval back now?"""
    return may_decide(user) if ask.may_be_revoked else Permission(False, "There is nothing to take back.")


def may_vote(user: User | AnonymousUser, ask: Ask) -> Permission:
    """May this person vote on this approval now?"""
    if not ask.is_open:
        return Permission(False, "It is decided.")
    if ask.voted_by_viewer:
        return Permission(False, "You have voted. One vote per person; it waits for others.")
    permission = may_decide(user)
    if not permission or (not ask.roles and ask.self_approval):
        return permission
    sentence = why_not(
        user.get_username(),
        roles=ask.roles,
        groups=_group_names(user),
        started_it=ask.started_by_viewer,
        self_approval=ask.self_approval,
        rule=ask.rule,
    )
    return Permission(not sentence, sentence)


def may_change_policy(user: User | AnonymousUser) -> Permission:
    """May this person write, enable and switch off rules, and give and revoke grants?"""
    if user.has_perm("runs.policy"):
        return YES
    return Permission(
        False, "You may look but not change rules. Ask an administrator for the permission “policy”."
    )


def _group_names(user: User | AnonymousUser) -> frozenset[str]:
    """Asked once for each request: a page may show several cards."""
    names: frozenset[str] | None = getattr(user, "_names_of_groups", None)
    if names is None:
        names = frozenset(user.groups.values_list("name", flat=True))
        user._names_of_groups = names  # type: ignore[union-attr]
    return names
