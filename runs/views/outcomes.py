"""Unknown outcomes: what waits for a person, one call in full, what the person found."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from runs.access import may_decide
from runs.actions import ActionError, resolve_outcome
from runs.forms import ResolutionForm
from runs.models import WhatBecame
from runs.reading.outcomes import Unknown, read_outcome, read_resolved, read_unknown
from runs.reading.queue import decided_counts
from runs.views.errors import allow
from runs.views.viewer import viewer_of

READ = ("GET", "HEAD")
DAY = timedelta(days=1)


@allow(*READ)
def lane(request: HttpRequest) -> HttpResponse:
    """Every call whose outcome nobody knows, oldest first; the first one is open."""
    return _page(request, pk=None)


@allow(*READ)
def outcome(request: HttpRequest, pk: int) -> HttpResponse:
    """The lane with this call open, resolved or not."""
    return _page(request, pk=pk)


@allow("POST")
def resolve(request: HttpRequest, pk: int) -> HttpResponse:
    """Record what a person found. Whoever comes second is told who was first, and keeps what they wrote."""
    card, form = _card(pk), ResolutionForm(request.POST)
    if not (permission := may_decide(request.user)):
        return _page(request, pk=pk, problem=permission.why_not, draft=form.draft, status=403)
    if not form.is_valid():
        problem = str(next(iter(form.errors.values()))[0])
        return _page(request, pk=pk, problem=problem, draft=form.draft, status=422)
    verdict = form.cleaned_data["verdict"]
    try:
        resolve_outcome(
            run_id=card.run.pk,
            seq=card.seq,
            verdict=verdict,
            evidence=form.cleaned_data["evidence"],
            by=viewer_of(request),
        )
    except ActionError as error:
        return _page(request, pk=pk, problem=str(error), draft=form.draft, status=409)
    messages.success(request, f"Recorded: {card.headline}. {_what_follows(card, verdict)}", extra_tags="ok")
    return redirect(_back(request))


def _what_follows(card: Unknown, verdict: str) -> str:
    if card.goes_on:
        return "The agent is told with its next turn."
    if verdict == WhatBecame.DID_NOT_HAPPEN:
        return "The run has ended: ask a follow-up question on its page to do it again."
    return "The run has ended; a follow-up question would tell the agent."


def _page(
    request: HttpRequest, *, pk: int | None, problem: str = "", draft: str = "", status: int = 200
) -> HttpResponse:
    waiting = read_unknown()
    if pk is None and waiting:
        pk = waiting[0].pk
    context: dict[str, Any] = {
        "waiting": waiting,
        "resolved": read_resolved(),
        "card": None if pk is None else _card(pk),
        "problem": problem,
        "draft": draft,
        "counts": decided_counts(timezone.now() - DAY),
    }
    return render(request, "outcomes/lane.html", context, status=status)


def _card(pk: int) -> Unknown:
    card = read_outcome(pk)
    if card is None:
        raise Http404("There is no call with an unknown outcome here. It may have been deleted with its run.")
    return card


def _back(request: HttpRequest) -> str:
    """Where the form was, when that is a page of ours; else the lane."""
    target = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(target, allowed_hosts=None) and target.startswith("/"):
        return target
    return "outcomes"
