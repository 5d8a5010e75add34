"""Groups of people: what rules call roles. An administrator keeps them from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import Group, Permission, User
from django.db import transaction

from runs.actions.change import one_writer
from runs.actions.errors import ActionError

LONGEST_NAME = 80


@dataclass(frozen=True)
class Member:
    """Somebody in a group, and whether they may decide on tool calls at all."""

    name: str
    may_decide: bool


def change_group(
    name: str, *, add: Sequence[str] = (), remove: Sequence[str] = (), allow: Sequence[str] = ()
) -> tuple[Member, ...]:
    """Make this group if there is none, change its members, let them do more; the members as they are then.

    `allow` names permissions such as "decide". Whoever leaves loses what the group gave them with their next
    request or vote. Raises ActionError; nothing is written then.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ActionError(f"The name of a group has 1 to {LONGEST_NAME} visible characters, such as On-call.")
    with one_writer(), transaction.atomic():
        group, _ = Group.objects.get_or_create(name=name)
        group.user_set.add(*_users(add))
        group.user_set.remove(*_users(remove))
        group.permissions.add(*_permissions(allow))
    members = User.objects.filter(groups=group, is_active=True).order_by("username")
    return tuple(Member(user.get_username(), user.has_perm("runs.decide")) for user in members)


def _users(names: Sequence[str]) -> list[User]:
    found = {user.get_username(): user for user in User.objects.filter(username__in=names)}
    if missing := [name for name in names if name not in found]:
        raise ActionError(f"There is no user {', '.join(missing)}. Nothing was changed.")
    return list(found.values())


def _permissions(names: Sequence[str]) -> list[Permission]:
    known = {one.codename: one for one in Permission.objects.filter(content_type__app_label="runs")}
    ours = {name: one for name, one in known.items() if "_" not in name}  # not those that Django makes
    if missing := [name for name in names if name not in ours]:
        raise ActionError(
            f"There is no permission {', '.join(missing)}. Known: {', '.join(sorted(ours))}. "
            "Nothing was changed."
        )
    return [ours[name] for name in names]
