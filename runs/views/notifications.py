"""Notifications: where people are told of approvals, and what they were told."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache

from runs import actions
from runs.access import may_notify
from runs.actions import ActionError, MayNotNotify, WantedChannel
from runs.models import ChannelKind, NoticeKind, NotificationChannel
from runs.reading.notifications import STATES, channel_names, read_channels, read_deliveries
from runs.reading.queue import read_queue
from runs.reading.starting import agent_choices
from runs.views.errors import allow
from runs.views.viewer import require, viewer_of

NOT_OF_APPROVALS = (NoticeKind.TEST, NoticeKind.COSTS)
NOTICES = [(value, label) for value, label in NoticeKind.choices if value not in NOT_OF_APPROVALS]
USUAL = [value for value, _ in NOTICES]


@allow("GET", "HEAD")
def channel_list(request: HttpRequest) -> HttpResponse:
    """All channels, and whether messages can link here."""
    context = {
        "channels": read_channels(),
        "permission": may_notify(request.user),
        "base_url": settings.AGENTOPS_URL,
    }
    return render(request, "notifications/channels.html", context)


@never_cache
@allow("GET", "HEAD", "POST")
def channel_new(request: HttpRequest) -> HttpResponse:
    """A form for a channel; its secret is in the answer to the form and never shown again."""
    return _form(request, None)


@never_cache
@allow("GET", "HEAD", "POST")
def channel_page(request: HttpRequest, pk: int) -> HttpResponse:
    """One channel to change, try and remove."""
    return _form(request, _channel(pk))


@allow("POST")
def test(request: HttpRequest, pk: int) -> HttpResponse:
    """Put a test into the outbox; the log shows what becomes of it."""
    try:
        delivery = actions.send_test(pk, user=viewer_of(request))
    except ActionError as error:
        return _refused(request, error)
    messages.info(request, f"A test is on its way to {delivery.channel_name}.")
    return redirect(f"{reverse('deliveries')}?channel={pk}")


@never_cache
@allow("POST")
def secret(request: HttpRequest, pk: int) -> HttpResponse:
    """Renew the secret and show it this once."""
    try:
        channel, told = actions.renew_secret(pk, user=viewer_of(request))
    except ActionError as error:
        return _refused(request, error)
    return render(request, "notifications/secret.html", {"channel": channel, "secret": told})


@allow("POST")
def remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget a channel."""
    try:
        name = actions.remove_channel(pk, user=viewer_of(request))
    except ActionError as error:
        return _refused(request, error)
    messages.info(request, f"The channel {name} is removed. Its log stays for 30 days.")
    return redirect("channels")


@never_cache
@allow("GET", "HEAD")
def deliveries(request: HttpRequest) -> HttpResponse:
    """The log of messages, newest first."""
    channel, state = _number(request.GET.get("channel", "")), request.GET.get("state", "")
    log = read_deliveries(
        timezone.now(), channel=channel, state=state, before=_number(request.GET.get("before", ""))
    )
    context = {
        "log": log,
        "channel": channel,
        "state": state if state in STATES else "",
        "states": STATES,
        "names": channel_names(),
        "permission": may_notify(request.user),
    }
    return render(request, "notifications/deliveries.html", context)


@allow("POST")
def again(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a message that ended once more."""
    try:
        delivery = actions.send_again(pk, user=viewer_of(request))
    except ActionError as error:
        return _refused(request, error, to="deliveries")
    messages.info(request, f"It is on its way to {delivery.channel_name} again.")
    return redirect("deliveries")


@never_cache
@allow("GET", "HEAD")
def pending_json(request: HttpRequest) -> JsonResponse:
    """What waits for a person, in our words: for the notifications of the browser."""
    tickets = read_queue(viewer=viewer_of(request), now=timezone.now())
    pending = [
        {
            "pk": ticket.ask.pk,
            "headline": ticket.ask.headline,
            "environment": ticket.ask.environment,
            "agent": ticket.run.agent,
            "run": ticket.run.pk,
            "url": reverse("approval", args=[ticket.ask.pk]),
        }
        for ticket in tickets
    ]
    return JsonResponse({"pending": pending})


def _form(request: HttpRequest, channel: NotificationChannel | None) -> HttpResponse:
    if request.method != "POST":
        return _render(request, channel, _wanted_of(channel, request), "", 200)
    require(may_notify(request.user))
    wanted = _wanted(request)
    try:
        saved, told = actions.save_channel(
            wanted, user=viewer_of(request), pk=None if channel is None else channel.pk
        )
    except ActionError as error:
        return _render(request, channel, wanted, str(error), 422)
    if told:
        return render(request, "notifications/secret.html", {"channel": saved, "secret": told, "made": True})
    messages.success(request, f"The channel {saved.name} is saved.", extra_tags="ok")
    return redirect("channels")


def _render(
    request: HttpRequest,
    channel: NotificationChannel | None,
    wanted: WantedChannel,
    problem: str,
    status: int,
) -> HttpResponse:
    context: dict[str, Any] = {
        "channel": channel,
        "wanted": wanted,
        "problem": problem,
        "kinds": ChannelKind.choices,
        "notices": NOTICES,
        "agents": agent_choices(),
        "environments": ", ".join(wanted.environments),
        "mail_is_set_up": bool(settings.MAILERS),
        "permission": may_notify(request.user),
    }
    return render(request, "notifications/channel.html", context, status=status)


def _wanted(request: HttpRequest) -> WantedChannel:
    """What the form says; numbers that are none are left to the action to refuse."""
    sent = request.POST
    return WantedChannel(
        name=sent.get("name", ""),
        kind=sent.get("kind", ""),
        url=sent.get("url", "").strip(),
        recipients=sent.get("recipients", ""),
        notices=sent.getlist("notices"),
        agents=sent.getlist("agents"),
        environments=[word.strip() for word in sent.get("environments", "").split(",") if word.strip()],
        remind_at=_number(sent.get("remind_at", "")) or 0,
        remind_unit=sent.get("remind_unit", ""),
        enabled="enabled" in sent,
    )


def _wanted_of(channel: NotificationChannel | None, request: HttpRequest) -> WantedChannel:
    """What the empty form, or that of a stored channel, begins with; an address is never shown again."""
    if channel is None:
        kind = request.GET.get("kind", "")
        return WantedChannel("", kind if kind in ChannelKind.values else ChannelKind.JSON, notices=USUAL)
    return WantedChannel(
        name=channel.name,
        kind=channel.kind,
        recipients=channel.recipients,
        notices=channel.notices,
        agents=channel.agents,
        environments=channel.environments,
        remind_at=channel.remind_at,
        remind_unit=channel.remind_unit,
        enabled=channel.enabled,
    )


def _channel(pk: int) -> NotificationChannel:
    try:
        return actions.find_channel(pk)
    except ActionError as error:
        raise Http404(str(error)) from error


def _refused(request: HttpRequest, error: ActionError, to: str = "channels") -> HttpResponse:
    if isinstance(error, MayNotNotify):
        raise PermissionDenied(str(error)) from error
    messages.warning(request, str(error), extra_tags="warn")
    return redirect(to)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 19 else None
