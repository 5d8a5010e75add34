"""Changing a call that waits, and taking an approval back before its call starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from runs.access import may_decide
from runs.actions import ActionError, InvalidEdit, MayNotDecide, ask_edit, revoke
from runs.actions.approvals import MAX_REASON_CHARACTERS
from runs.reading.editing import arguments_from, fields_of, find_approval
from runs.reading.queue import Card, read_card
from runs.views.approvals import queue_page
from runs.views.errors import allow
from runs.views.viewer import viewer_of


@allow("GET", "HEAD", "POST")
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    """The arguments of a call that waits as a form; what is sent is checked, then asked about."""
    approval = find_approval(pk)
    card = read_card(pk, viewer=viewer_of(request), now=timezone.now())
    if approval is None or card is None:
        raise Http404(f"There is no approval {pk}. It may have been deleted with its run.")
    if request.method != "POST":
        status = 200 if card.ask.is_open else 409
        return _page(request, card, {"fields": fields_of(approval)}, status=status)
    arguments, problems = arguments_from(approval, request.POST)
    context: dict[str, Any] = {
        "fields": tuple(
            replace(one, problem=problems.get(one.name, "")) for one in fields_of(approval, request.POST)
        ),
        "reason": request.POST.get("reason", ""),
    }
    if not (permission := may_decide(request.user)):
        return _page(request, card, context | {"problem": permission.why_not}, status=403)
    if problems:
        problem = "Some values cannot be taken. Nothing was changed."
        return _page(request, card, context | {"problem": problem}, status=422)
    revision, digest = _seen(request)
    try:
        ask_edit(
            approval_id=pk,
            editor=viewer_of(request),
            arguments=arguments,
            reason=request.POST.get("reason", "")[: 2 * MAX_REASON_CHARACTERS],
            revision=revision,
            digest=digest,
        )
    except InvalidEdit as error:
        return _page(request, card, context | {"problem": str(error)}, status=422)
    except ActionError as error:
        status = 403 if isinstance(error, MayNotDecide) else 409
        return _page(request, card, context | {"problem": str(error)}, status=status)
    messages.info(request, "Your change is being checked with a dry run. People are asked about it next.")
    return redirect("approval", pk)


@allow("POST")
def take_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Revoke an approval whose call has not started. Whoever comes too late is told since when it runs."""
    revision, digest = _seen(request)
    try:
        after = revoke(
            approval_id=pk,
            reviewer=viewer_of(request),
            reason=request.POST.get("undo_reason", ""),
            revision=revision,
            digest=digest,
        )
    except ActionError as error:
        status = 403 if isinstance(error, MayNotDecide) else 409
        return queue_page(request, pk=pk, problem=str(error), status=status)
    headline = after.card.get("headline") or f"Run {after.step.name}"
    messages.info(request, f"Undone: {headline}. It does not run; the agent is told why.")
    target = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(target, allowed_hosts=None) and target.startswith("/"):
        return redirect(target)
    return redirect("approval", pk)


def _page(request: HttpRequest, card: Card, context: dict[str, Any], *, status: int) -> HttpResponse:
    return render(request, "approvals/edit.html", {"card": card, **context}, status=status)


def _seen(request: HttpRequest) -> tuple[int, str]:
    """Which question was on the page that was sent; one that makes no sense is an outdated page."""
    revision = request.POST.get("revision", "")
    return int(revision) if revision.isdecimal() and len(revision) < 9 else 0, request.POST.get("digest", "")
