"""Approvals: the queue with one open card, and the decision."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from runs.access import may_decide
from runs.actions import ActionError, AlreadyDecided, MayNotDecide, decide
from runs.forms import REASONS, DecisionForm
from runs.models import Approval, ApprovalState
from runs.reading.queue import Card, decided_counts, grouped, read_card, read_queue
from runs.reading.rechecks import read_relapses
from runs.seen import seconds_on_card
from runs.views.errors import allow
from runs.views.viewer import viewer_of

READ = ("GET", "HEAD")
DAY = timedelta(days=1)


@allow(*READ)
def queue(request: HttpRequest) -> HttpResponse:
    """What waits for a person, nearest deadline first; the first card is open."""
    return queue_page(request, pk=None)


@allow(*READ)
def approval(request: HttpRequest, pk: int) -> HttpResponse:
    """The queue with this card open, decided or not."""
    return queue_page(request, pk=pk)


@allow("POST")
def decide_view(request: HttpRequest, pk: int) -> HttpResponse:
    """Record one vote. Whoever comes second is told who was first, and keeps what they wrote."""
    form = DecisionForm(request.POST)
    if not (permission := may_decide(request.user)):
        return queue_page(request, pk=pk, form=form, problem=permission.why_not, status=403)
    if not form.is_valid():
        return queue_page(request, pk=pk, form=form, problem=_first_error(form), status=422)
    card = _card(request, pk)
    verdict = form.cleaned_data["verdict"]
    word = card.ask.confirm_word
    if verdict == "approve" and word and form.cleaned_data["confirm"].strip() != word:
        problem = f"Type {word} to approve: this cannot be undone. Nothing was decided."
        return queue_page(request, pk=pk, form=form, problem=problem, status=422)
    try:
        after = decide(
            approval_id=pk,
            voter=viewer_of(request),
            verdict=verdict,
            reason=form.reason,
            revision=form.cleaned_data["revision"],
            digest=form.cleaned_data["digest"],
            seconds_on_card=seconds_on_card(
                form.cleaned_data["seen"], viewer_of(request), card.ask, timezone.now()
            ),
        )
    except AlreadyDecided as error:
        return queue_page(request, pk=pk, form=form, problem=str(error), status=409)
    except ActionError as error:
        status = 403 if isinstance(error, MayNotDecide) else 409
        return queue_page(request, pk=pk, form=form, problem=str(error), status=status)
    _say_what_happened(request, after, card)
    return redirect(_back(request))


def queue_page(
    request: HttpRequest,
    *,
    pk: int | None,
    form: DecisionForm | None = None,
    problem: str = "",
    status: int = 200,
) -> HttpResponse:
    """The queue with this card open, and what went wrong with what was sent about it."""
    now = timezone.now()
    tickets = read_queue(viewer=viewer_of(request), now=now)
    groups = grouped(tickets)
    if pk is None and groups:
        pk = groups[0].tickets[0].ask.pk
    card = None if pk is None else _card(request, pk)
    context: dict[str, Any] = {
        "tickets": tickets,
        "groups": groups,
        "card": card,
        "reasons": REASONS.items(),
        "form": form,
        "problem": problem,
        "draft": form.data.get("say", "") if form else "",
        "chosen": form.data.getlist("why") if form and hasattr(form.data, "getlist") else [],
        "counts": decided_counts(now - DAY),
        "relapses": read_relapses(),
    }
    return render(request, "approvals/queue.html", context, status=status)


def _card(request: HttpRequest, pk: int) -> Card:
    card = read_card(pk, viewer=viewer_of(request), now=timezone.now())
    if card is None:
        raise Http404(f"There is no approval {pk}. It may have been deleted with its run.")
    return card


def _say_what_happened(request: HttpRequest, after: Approval, card: Card) -> None:
    headline = card.ask.headline
    if after.state == ApprovalState.APPROVED:
        messages.success(request, f"Approved: {headline}. The agent goes on.", extra_tags="ok")
    elif after.state == ApprovalState.REJECTED:
        messages.info(request, f"Rejected: {headline}. It does not run; the agent is told why.")
    else:
        messages.info(request, f"Your vote is recorded. {headline} waits for another person.")


def _back(request: HttpRequest) -> str:
    """Where the form was, when that is a page of ours; else the queue."""
    target = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(target, allowed_hosts=None) and target.startswith("/"):
        return target
    return "approvals"


def _first_error(form: DecisionForm) -> str:
    """What is wrong with the vote, for a person; broken hidden fields mean an outdated page."""
    for name in ("verdict", "say"):
        if name in form.errors:
            return str(form.errors[name][0])
    return "This card is out of date. Look at it again, then decide."
