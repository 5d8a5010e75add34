"""Who is told what was spent: subscriptions, and the message of each period, written exactly once.

A message is a row of the outbox. It is written in the transaction that locks its subscription and moves
`told_until` on: of several workers one writes it, and one that dies has written both or nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from runs.actions.change import one_writer
from runs.actions.channels import check_permission, find_channel
from runs.actions.errors import ActionError
from runs.models import CostSummary, Every, NoticeKind, NotificationDelivery
from runs.models.summary import period_of

SETTLED = timedelta(hours=1)  # after the end of a period: what was under way then is booked by now
ASKED_AGAIN = timedelta(minutes=10)  # between two "send me one now" of a subscriber


@dataclass(frozen=True)
class DueSummary:
    """A subscriber who is to be told of a period that is over."""

    pk: int
    every: str
    since: datetime
    until: datetime


def subscribe(every: str, *, user: User, address: str = "", channel: int | None = None) -> CostSummary | None:
    """Tell this person, or a channel, every week or month from the next end of one; empty `every`: no more.

    Whoever may not manage notifications subscribes the address of his own account. Raises ActionError.
    """
    if channel is not None:
        check_permission(user)
    if every and every not in Every.values:
        raise ActionError("Choose every week, every month, or never.")
    now = timezone.now()
    with one_writer(), transaction.atomic():
        values: dict[str, Any] = {"changed_by": user.get_username(), "changed_at": now, "every": every}
        whose: dict[str, Any] = {"user": user}
        if channel is None:
            values["address"] = checked_address(address, user) if every else ""
        else:
            whose = {"channel": find_channel(channel)}
        found = CostSummary.objects.select_for_update().filter(**whose).first()
        if not every:
            if found is not None:
                found.delete()
            return None
        if found is None or found.every != every:
            values["told_until"] = period_of(every, now)[0]
        summary, _ = CostSummary.objects.update_or_create(**whose, defaults=values)
    return summary


def checked_address(address: str, user: User) -> str:
    """Where a person may be sent to. Raises ActionError."""
    address = address.strip() or user.email
    if not address:
        raise ActionError("Your account has no e-mail address. Ask an administrator to enter one.")
    if address != user.email and not user.has_perm("runs.notify"):
        raise ActionError(
            "You may subscribe the address of your account only. For another one, ask for “notify”."
        )
    try:
        validate_email(address)
    except ValidationError as error:
        raise ActionError(f"“{address[:100]}” is no e-mail address.") from error
    return address


def due_summaries(now: datetime) -> list[DueSummary]:
    """Whom to tell of which period: the last one that is over, also after a long silence of all workers."""
    found = []
    for every in Every.values:
        since, until = period_of(every, period_of(every, now - SETTLED)[0] - timedelta(days=1))
        late = CostSummary.objects.filter(every=every, told_until__lt=until).filter(_is_open())
        found += [DueSummary(pk, every, since, until) for pk in late.values_list("pk", flat=True)]
    return found


def send_summary(due: DueSummary, facts: dict[str, Any]) -> bool:
    """Put the message into the outbox; False when that was done already, or nobody wants it any more."""
    with one_writer(), transaction.atomic():
        summary = CostSummary.objects.select_for_update().filter(pk=due.pk).first()
        if summary is None or summary.every != due.every or summary.told_until >= due.until:
            return False
        summary.told_until = due.until
        summary.save(update_fields=["told_until"])
        _write(summary, facts)
    return True


def send_summary_now(pk: int, *, user: User, facts: dict[str, Any]) -> CostSummary:
    """Send one besides the regular ones; one in ten minutes. Raises ActionError with a sentence."""
    now = timezone.now()
    with one_writer(), transaction.atomic():
        CostSummary.objects.select_for_update().filter(pk=pk).first()  # one after the other
        summary = _of(pk, user)
        _check_rate(summary, now)
        summary.asked_at = now
        summary.save(update_fields=["asked_at"])
        if summary.channel is not None and not summary.channel.enabled:
            raise ActionError(f"The channel {summary.channel.name} is switched off. Switch it on first.")
        _write(summary, facts)
    return summary


def check_send_now(pk: int, *, user: User) -> str:
    """How often this subscriber is told; raises ActionError where `send_summary_now` would."""
    summary = _of(pk, user)
    _check_rate(summary, timezone.now())
    return summary.every


def _check_rate(summary: CostSummary, now: datetime) -> None:
    if summary.asked_at is not None and (left := summary.asked_at + ASKED_AGAIN - now) > timedelta():
        minutes = -(-left // timedelta(minutes=1))
        raise ActionError(f"One was asked for just now. Ask again in {minutes} min.")


def _of(pk: int, user: User) -> CostSummary:
    summary = CostSummary.objects.select_related("user", "channel").filter(pk=pk).first()
    if summary is None or summary.user not in (None, user):
        raise ActionError("There is no such subscription any more. Choose how often first.")
    if summary.channel is not None:
        check_permission(user)
    return summary


def _is_open() -> Q:
    """Somebody is there to be told."""
    return Q(user__is_active=True) | Q(channel__enabled=True)


def _write(summary: CostSummary, facts: dict[str, Any]) -> None:
    now = timezone.now()
    NotificationDelivery.objects.create(
        channel=summary.channel,
        channel_name=summary.name[:80],
        recipients=summary.address,
        notice=NoticeKind.COSTS,
        facts=json.dumps(facts | {"at": now.isoformat()}, ensure_ascii=False),
        next_at=now,
        created_at=now,
    )
