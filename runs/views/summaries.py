"""Summaries of costs: how often a person or a channel is told, and one at once."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from runs.access import may_notify
from runs.actions import ActionError, MayNotNotify
from runs.actions import summaries as acts
from runs.models import Every
from runs.models.summary import period_of
from runs.parameters import number_of
from runs.reading.subscriptions import read_subscriptions
from runs.reading.summary_mail import summary_facts
from runs.views.errors import allow
from runs.views.viewer import viewer_of


@allow("GET", "HEAD")
def summary_page(request: HttpRequest) -> HttpResponse:
    """What this person chose, and for people who may, what channels are told."""
    return _page(request)


@allow("POST")
def subscribe(request: HttpRequest) -> HttpResponse:
    """Choose how often; what was wrong is said beside what was sent."""
    every, named = request.POST.get("every", ""), request.POST.get("channel", "")
    # A channel that cannot be found is not taken for "me": then nobody's own choice changes.
    channel = (number_of(named) or 0) if named else None
    try:
        summary = acts.subscribe(
            every, user=viewer_of(request), address=request.POST.get("address", ""), channel=channel
        )
    except ActionError as error:
        return _page(request, str(error), status=403 if isinstance(error, MayNotNotify) else 422)
    if summary is None:
        messages.info(request, "No more summaries are sent.")
    else:
        messages.success(request, f"A summary is sent every {summary.every}.", extra_tags="ok")
    return redirect("summaries")


@allow("POST")
def send_now(request: HttpRequest, pk: int) -> HttpResponse:
    """Send one about the present period, as far as it has come."""
    now = timezone.now()
    try:
        every = acts.check_send_now(pk, user=viewer_of(request))
        since, until = period_of(every, now)
        summary = acts.send_summary_now(
            pk, user=viewer_of(request), facts=summary_facts(every, since, until, now=now)
        )
    except MayNotNotify as error:
        raise PermissionDenied(str(error)) from error
    except ActionError as error:
        messages.warning(request, str(error), extra_tags="warn")
    else:
        messages.success(request, f"A summary is on its way to {summary.target}.", extra_tags="ok")
    return redirect("summaries")


def _page(request: HttpRequest, problem: str = "", *, status: int = 200) -> HttpResponse:
    permission = may_notify(request.user)
    viewer = viewer_of(request)
    mine, channels = read_subscriptions(viewer)
    context = {
        "mine": mine,
        "channels": channels,
        "choices": [("", "Never"), *Every.choices],
        "permission": permission,
        "problem": problem,
        "sent": request.POST if problem else {},
        "mail_is_set_up": bool(settings.MAILERS),
        "base_url": settings.AGENTOPS_URL,
    }
    return render(request, "costs/summaries.html", context, status=status)
