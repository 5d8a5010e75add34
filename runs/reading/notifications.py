"""Where people are told, and the log of what they were told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import OuterRef, Subquery

from runs import messages
from runs.models import UNDER_WAY, DeliveryState, NotificationChannel, NotificationDelivery

PAGE = 50
MOST_CHANNELS = 200
STATES = tuple(DeliveryState.values)
# The badges of the stylesheet that say the same.
SHOWN = {
    "waiting": "queued",
    "sending": "running",
    "sent": "succeeded",
    "failed": "failed",
    "dropped": "stopped",
}


@dataclass(frozen=True)
class DeliveryRow:
    """One message as the log shows it."""

    delivery: NotificationDelivery

    @property
    def title(self) -> str:
        return messages.title(self.delivery.notice, self.delivery.said)

    @property
    def budget(self) -> int | None:
        """The number of the budget it tells of, if it does."""
        number: int | None = self.delivery.said.get("budget")
        return number

    @property
    def badge(self) -> str:
        return SHOWN[self.delivery.state]

    @property
    def word(self) -> str:
        delivery = self.delivery
        if delivery.state == DeliveryState.WAITING and delivery.attempts:
            return "Trying again"
        return str(delivery.get_state_display())

    @property
    def may_send_again(self) -> bool:
        ended = self.delivery.state in {DeliveryState.SENT, DeliveryState.FAILED}
        return ended and self.delivery.channel_id is not None


@dataclass(frozen=True)
class ChannelRow:
    """A channel and how its latest message went."""

    channel: NotificationChannel
    last: DeliveryRow | None


@dataclass(frozen=True)
class Log:
    """A page of deliveries, newest first."""

    rows: tuple[DeliveryRow, ...]
    older: int | None  # the id to go on before
    moving: bool  # something is about to change: worth another look soon


def read_channels() -> list[ChannelRow]:
    """All channels by name, each with its latest delivery that is no reminder to come: two queries."""
    latest = NotificationDelivery.objects.filter(channel=OuterRef("pk"), attempts__gt=0).order_by("-id")
    channels = list(
        NotificationChannel.objects.annotate(latest=Subquery(latest.values("pk")[:1]))[:MOST_CHANNELS]
    )
    found = NotificationDelivery.objects.in_bulk([c.latest for c in channels if c.latest])
    last = {pk: DeliveryRow(delivery) for pk, delivery in found.items()}
    return [ChannelRow(channel, last.get(channel.latest)) for channel in channels]


def read_deliveries(
    now: datetime, *, channel: int | None = None, state: str = "", before: int | None = None
) -> Log:
    """A page of the log; `before` is an id to go on before."""
    rows = NotificationDelivery.objects.select_related("run", "channel").order_by("-id")
    if channel is not None:
        rows = rows.filter(channel=channel)
    if state in STATES:
        rows = rows.filter(state=state)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows[: PAGE + 1])
    page = found[:PAGE]
    return Log(
        rows=tuple(DeliveryRow(delivery) for delivery in page),
        older=page[-1].pk if len(found) > PAGE else None,
        moving=any(d.state in UNDER_WAY and (d.next_at - now).total_seconds() < 60 for d in page),
    )


def channel_names() -> list[tuple[int, str]]:
    """Key and name of each channel, for the filter of the log."""
    return list(NotificationChannel.objects.values_list("pk", "name")[:MOST_CHANNELS])
