"""The outbox: who sends a message, what came of it, and when it is tried again.

A message is claimed by one conditional update and belongs to that sender until its lease ends; what the
sender then records counts only while nobody claimed it since. A sender that died is followed by another,
with the same message id: receivers see each message at least once and can drop repeats.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Min, QuerySet
from django.utils import timezone

from runs.actions.change import one_writer
from runs.actions.notifications import reminder_due
from runs.models import (
    UNDER_WAY,
    DeliveryState,
    NoticeKind,
    NotificationDelivery,
)

MOST_ATTEMPTS = 8
FIRST_WAIT_SECONDS = 5.0  # then four times as long each time
LONGEST_WAIT_SECONDS = 3_600.0
KEPT = timedelta(days=30)  # how long the log goes back
MOST_ERROR = 500


@dataclass(frozen=True)
class Outcome:
    """What one attempt came to. An empty error: the receiver took it.

    `status` is the HTTP status if there was an answer; `final`: trying again would not help; `wait_seconds`:
    what the receiver asked for.
    """

    error: str = ""
    status: int | None = None
    final: bool = False
    wait_seconds: float | None = None


def due_deliveries(now: datetime, limit: int, *, busy_channels: Collection[int] = ()) -> list[int]:
    """Ids of messages to send now: of each channel that is not busy the oldest that is due."""
    due = NotificationDelivery.objects.filter(state__in=UNDER_WAY, next_at__lte=now)
    due = due.exclude(channel__in=busy_channels).order_by()
    firsts = due.values("channel").annotate(first=Min("pk")).order_by("first")
    return [row["first"] for row in firsts[:limit]]


def claim_delivery(pk: int, *, lease_seconds: float) -> NotificationDelivery | None:
    """Take this message for one attempt; None when another sender has it, or when it is not due any more.

    The `attempts` of the returned row are the claim. A message that nobody needs by now is settled here.
    """
    now = timezone.now()
    with one_writer(), transaction.atomic():
        row = NotificationDelivery.objects.filter(pk=pk, state__in=UNDER_WAY, next_at__lte=now)
        claimed = row.update(
            state=DeliveryState.SENDING,
            attempts=F("attempts") + 1,
            next_at=now + timedelta(seconds=lease_seconds),
        )
        if not claimed:
            return None
        delivery = NotificationDelivery.objects.select_related("channel", "approval").get(pk=pk)
        return None if _is_settled(delivery, now) else delivery


def record_delivery(delivery: NotificationDelivery, outcome: Outcome) -> None:
    """Store what came of the attempt; nothing when another sender has claimed the message since."""
    now = timezone.now()
    values: dict[str, object] = {"response_status": outcome.status, "error": outcome.error[:MOST_ERROR]}
    if not outcome.error:
        values |= {"state": DeliveryState.SENT, "ended_at": now}
    elif outcome.final or delivery.attempts >= delivery.most_attempts:
        values |= {"state": DeliveryState.FAILED, "ended_at": now}
    else:
        wait = _wait_seconds(delivery.attempts, outcome.wait_seconds)
        values |= {"state": DeliveryState.WAITING, "next_at": now + timedelta(seconds=wait)}
    with one_writer(), transaction.atomic():
        _mine(delivery).update(**values)


def forget_deliveries(now: datetime) -> int:
    """Remove what was written a month ago and has ended; returns how many."""
    with one_writer(), transaction.atomic():
        old = NotificationDelivery.objects.filter(created_at__lt=now - KEPT).exclude(state__in=UNDER_WAY)
        return old.delete()[0]


def _mine(delivery: NotificationDelivery) -> QuerySet[NotificationDelivery]:
    return NotificationDelivery.objects.filter(
        pk=delivery.pk, state=DeliveryState.SENDING, attempts=delivery.attempts
    )


def _is_settled(delivery: NotificationDelivery, now: datetime) -> bool:
    """Whether there is nothing to send after all: nobody to tell, nothing to remind of, or not yet."""
    channel, approval = delivery.channel, delivery.approval
    if (channel is None and not delivery.recipients) or (channel is not None and not channel.enabled):
        why = "was removed" if channel is None else "is switched off"
        _drop(delivery, f"The channel {delivery.channel_name} {why}.", now)
    elif delivery.attempts > delivery.most_attempts:
        _drop(delivery, "Its workers ended each time before it was sent.", now, DeliveryState.FAILED)
    elif delivery.notice == NoticeKind.EXPIRING and approval is not None and channel is not None:
        if not approval.is_open or approval.has_expired(now):
            _drop(delivery, "It was decided, or its deadline passed.", now)
        elif delivery.attempts == 1 and (due := reminder_due(channel, approval)) > now:
            _mine(delivery).update(state=DeliveryState.WAITING, attempts=0, next_at=due)  # a later deadline
        else:
            return False
    else:
        return False
    return True


def _drop(
    delivery: NotificationDelivery,
    why: str,
    now: datetime,
    state: DeliveryState = DeliveryState.DROPPED,
) -> None:
    _mine(delivery).update(state=state, error=why, ended_at=now)


def _wait_seconds(attempts: int, asked: float | None) -> float:
    """Longer each time, with jitter so that receivers are not asked by all at once."""
    planned: float = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 4 ** (attempts - 1))
    jittered = planned * random.uniform(0.75, 1.25)  # noqa: S311 spreads load, keeps no secret
    return max(jittered, min(asked or 0.0, LONGEST_WAIT_SECONDS))
