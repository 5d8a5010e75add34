"""Who gets summaries of costs."""

from __future__ import annotations

from django.contrib.auth.models import User

from runs.models import CostSummary, NotificationChannel

MOST_CHANNELS = 200


def read_subscriptions(
    viewer: User,
) -> tuple[CostSummary | None, list[tuple[NotificationChannel, CostSummary | None]]]:
    """The subscription of this person, and every channel with its own."""
    mine = CostSummary.objects.select_related("user", "channel").filter(user=viewer).first()
    of_channels = {s.channel_id: s for s in CostSummary.objects.filter(channel__isnull=False)}
    channels = NotificationChannel.objects.order_by("name")[:MOST_CHANNELS]
    return mine, [(channel, of_channels.get(channel.pk)) for channel in channels]
