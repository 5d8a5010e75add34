"""Where people are told: channels are made, changed, tried and removed. They change no run."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone

from runs.actions.change import one_writer
from runs.actions.deliveries import MOST_ATTEMPTS
from runs.actions.errors import ActionError
from runs.models import (
    UNDER_WAY,
    ChannelKind,
    DeliveryState,
    NoticeKind,
    NotificationChannel,
    NotificationDelivery,
)
from runs.outgoing import BadAddress, check_receiver

MOST_RECIPIENTS = 50
MOST_URL = 2_000


class MayNotNotify(ActionError):
    """This person may look, but not manage notifications."""


@dataclass(frozen=True)
class WantedChannel:
    """What a person wants of a channel. An empty address keeps the one that is stored."""

    name: str
    kind: str
    url: str = ""
    recipients: str = ""
    notices: Sequence[str] = ()
    agents: Sequence[str] = ()
    environments: Sequence[str] = field(default=())
    remind_at: int = 25
    remind_unit: str = "percent"
    enabled: bool = True


def save_channel(
    wanted: WantedChannel, *, user: User, pk: int | None = None
) -> tuple[NotificationChannel, str]:
    """Make a channel, or change the one with this key; returns it, and its new secret or an empty text.

    The secret is told here and nowhere else. Raises ActionError with a sentence for what cannot be.
    """
    check_permission(user)
    with one_writer(), transaction.atomic():
        channel = NotificationChannel() if pk is None else find_channel(pk)
        _fill(channel, wanted)
        new_secret = ""
        if channel.is_webhook and not channel.secret:
            new_secret = channel.secret = make_secret()
        _stamp(channel, user)
        try:
            with transaction.atomic():
                channel.save()
        except IntegrityError as error:
            raise ActionError(f"There is a channel named {channel.name} already. Choose another.") from error
    return channel, new_secret


def renew_secret(pk: int, *, user: User) -> tuple[NotificationChannel, str]:
    """Give a webhook another secret and return it; the old one signs nothing from now on."""
    check_permission(user)
    with one_writer(), transaction.atomic():
        channel = find_channel(pk)
        if not channel.is_webhook:
            raise ActionError("E-mail has no secret.")
        channel.secret = make_secret()
        _stamp(channel, user)
        channel.save()
    return channel, channel.secret


def remove_channel(pk: int, *, user: User) -> str:
    """Forget a channel; its log stays. Returns its name."""
    check_permission(user)
    with one_writer(), transaction.atomic():
        channel = find_channel(pk)
        NotificationDelivery.objects.filter(channel=channel, state__in=UNDER_WAY).update(
            state=DeliveryState.DROPPED,
            error=f"The channel was removed by {user.get_username()}.",
            ended_at=timezone.now(),
        )
        channel.delete()
    return channel.name


def send_test(pk: int, *, user: User) -> NotificationDelivery:
    """Put a test message into the outbox of a channel, tried once."""
    check_permission(user)
    now = timezone.now()
    facts = {
        "headline": f"A test of the channel {find_channel(pk).name}, sent by {user.get_username()}",
        "outcome": "test",
        "simulated": not settings.ANTHROPIC_API_KEY,
        "at": now.isoformat(),
    }
    with one_writer(), transaction.atomic():
        channel = find_channel(pk)
        if not channel.enabled:
            raise ActionError(f"The channel {channel.name} is switched off. Switch it on first.")
        return NotificationDelivery.objects.create(
            channel=channel,
            channel_name=channel.name,
            notice=NoticeKind.TEST,
            facts=json.dumps(facts, ensure_ascii=False),
            most_attempts=1,
            next_at=now,
            created_at=now,
        )


def send_again(pk: int, *, user: User) -> NotificationDelivery:
    """Send a message that ended once more, with the same id. Raises ActionError when it cannot be."""
    check_permission(user)
    now = timezone.now()
    with one_writer(), transaction.atomic():
        delivery = NotificationDelivery.objects.select_for_update(of=("self",)).filter(pk=pk).first()
        if delivery is None:
            raise ActionError("There is no such delivery. Deliveries are kept for 30 days.")
        if delivery.is_under_way:
            raise ActionError("It is on its way already.")
        if delivery.channel_id is None and not delivery.recipients:
            raise ActionError(f"The channel {delivery.channel_name} was removed. Nobody can be told.")
        if delivery.state == DeliveryState.DROPPED:
            raise ActionError("It was not sent because nobody needs it any more.")
        delivery.state = DeliveryState.WAITING
        delivery.next_at = now
        delivery.most_attempts = delivery.attempts + MOST_ATTEMPTS
        delivery.error = ""
        delivery.ended_at = None
        delivery.save(update_fields=["state", "next_at", "most_attempts", "error", "ended_at"])
    return delivery


def make_secret() -> str:
    """A signing secret as standard webhooks write it: whsec_ and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def find_channel(pk: int) -> NotificationChannel:
    """The channel; raises ActionError when there is none."""
    channel = NotificationChannel.objects.filter(pk=pk).first()
    if channel is None:
        raise ActionError("There is no such channel. It may have been removed.")
    return channel


def check_permission(user: User) -> None:
    """Raises MayNotNotify for a person who may only look."""
    if not (user.is_active and user.has_perm("runs.notify")):
        raise MayNotNotify("You may look but not manage notifications. Ask for the permission “notify”.")


def _fill(channel: NotificationChannel, wanted: WantedChannel) -> None:
    name = " ".join(wanted.name.split())
    if not name or len(name) > 80:
        raise ActionError("Give the channel a name of up to 80 characters.")
    if wanted.kind not in ChannelKind.values:
        raise ActionError("Choose what the channel is: a webhook or e-mail.")
    unknown = set(wanted.notices) - set(NoticeKind.values)
    if not wanted.notices or unknown:
        raise ActionError("Choose at least one kind of notice.")
    most = 99 if wanted.remind_unit == "percent" else 10_080
    if wanted.remind_unit not in {"percent", "minutes"} or not 1 <= wanted.remind_at <= most:
        raise ActionError("Remind at 1 to 99 percent of the time left, or 1 to 10,080 minutes before.")
    channel.name, channel.kind, channel.enabled = name, wanted.kind, wanted.enabled
    channel.notices = [notice for notice in NoticeKind.values if notice in wanted.notices]
    channel.agents, channel.environments = sorted(set(wanted.agents)), sorted(set(wanted.environments))
    channel.remind_at, channel.remind_unit = wanted.remind_at, wanted.remind_unit
    if channel.is_webhook:
        channel.url, channel.recipients = _address(wanted.url or channel.url), ""
    else:
        channel.url, channel.secret = "", ""
        channel.recipients = _recipients(wanted.recipients)


def _address(url: str) -> str:
    if len(url) > MOST_URL:
        raise ActionError(f"The address has more than {MOST_URL:,} characters.")
    try:
        check_receiver(url.strip(), settings.AGENTOPS_WEBHOOK_PRIVATE)
    except BadAddress as error:
        raise ActionError(str(error)) from error
    return url.strip()


def _recipients(text: str) -> str:
    addresses = [word for word in re.split(r"[,;\s]+", text) if word]
    if not 1 <= len(addresses) <= MOST_RECIPIENTS:
        raise ActionError(f"Give 1 to {MOST_RECIPIENTS} e-mail addresses, separated by commas.")
    for address in addresses:
        try:
            validate_email(address)
        except ValidationError as error:
            raise ActionError(f"“{address[:100]}” is no e-mail address.") from error
    return ", ".join(addresses)


def _stamp(channel: NotificationChannel, user: User) -> None:
    channel.changed_by, channel.changed_at = user.get_username(), timezone.now()
