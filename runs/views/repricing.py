"""Repricing: a dry run over a period, what it would change, and the button that does exactly that."""

from __future__ import annotations

from datetime import timedelta

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone

from runs.access import may_set_prices
from runs.actions import ActionError
from runs.actions.prices import read_moment
from runs.actions.repricing import (
    UnknownRepricing,
    apply_repricing,
    apply_some,
    find_repricing,
    plan_repricing,
)
from runs.models import Repricing
from runs.parameters import number_of
from runs.reading.advice.page import agent_names
from runs.reading.repricings import csv_lines, json_lines, read_repricing, read_repricings
from runs.views.errors import allow
from runs.views.streaming import download
from runs.views.viewer import viewer_of

READ = ("GET", "HEAD")
AT_ONCE = 20  # runs that are done before the page answers; workers do the rest
USUAL_DAYS = 30
FORMATS = {"csv": ("text/csv; charset=utf-8", csv_lines), "jsonl": ("application/jsonl", json_lines)}


@allow(*READ, "POST")
def repricings(request: HttpRequest) -> HttpResponse:
    """The form of a dry run, and those that were made."""
    if request.method != "POST":
        return _list(request)
    permission = may_set_prices(request.user)
    if not permission:
        return _list(request, permission.why_not, status=403)
    since, until = (read_moment(request.POST.get(name, "")) for name in ("since", "until"))
    if request.POST.get("until", "").strip() == "":
        until = timezone.now()
    if since is None or until is None:
        return _list(request, "Give the period in UTC, such as 2026-11-01 to 2026-11-22 14:30.", status=422)
    try:
        plan = plan_repricing(
            actor=viewer_of(request).get_username(),
            since=since,
            until=until,
            model=request.POST.get("model", "")[:128],
            agent=request.POST.get("agent", "")[:64],
        )
    except ActionError as error:
        return _list(request, str(error), status=422)
    return redirect("repricing", plan.pk)


@allow(*READ)
def repricing_page(request: HttpRequest, pk: int) -> HttpResponse:
    """What changes, or what was changed."""
    return _page(request, _found(pk))


@allow("POST")
def repricing_apply(request: HttpRequest, pk: int) -> HttpResponse:
    """Do what the dry run showed: the first runs at once, the others by the workers."""
    plan, permission = _found(pk), may_set_prices(request.user)
    if not permission:
        return _page(request, plan, permission.why_not, status=403)
    try:
        apply_repricing(
            actor=viewer_of(request).get_username(),
            repricing_id=pk,
            digest=request.POST.get("digest", ""),
            reason=request.POST.get("reason", ""),
        )
    except ActionError as error:
        return _page(request, _found(pk), str(error), status=422)
    if apply_some(most=AT_ONCE):
        messages.info(request, "It is being applied: the workers go on with it.")
    else:
        messages.success(request, "It is applied.", extra_tags="ok")
    return redirect("repricing", pk)


@allow(*READ)
def export(request: HttpRequest, pk: int, kind: str) -> HttpResponseBase:
    """Every line of it as a file."""
    content_type, lines_of = FORMATS[kind]
    lines = lines_of(_found(pk))
    return download(request, lines, name=f"repricing-{pk}.{kind}", content_type=content_type, at_once=500)


def _found(pk: int) -> Repricing:
    try:
        return find_repricing(pk)
    except UnknownRepricing as error:
        raise Http404 from error


def _list(request: HttpRequest, problem: str = "", *, status: int = 200) -> HttpResponse:
    since = timezone.now() - timedelta(days=USUAL_DAYS)
    usual = {"since": f"{since:%Y-%m-%d}", "model": request.GET.get("model", "")}
    context = {
        "repricings": read_repricings(),
        "values": request.POST if problem else usual,
        "agents": agent_names(),
        "problem": problem,
        "permission": may_set_prices(request.user),
    }
    return render(request, "prices/repricings.html", context, status=status)


def _page(request: HttpRequest, plan: Repricing, problem: str = "", *, status: int = 200) -> HttpResponse:
    context = {
        "page": read_repricing(plan, number=number_of(request.GET.get("page", "")) or 1),
        "problem": problem,
        "reason": request.POST.get("reason", ""),
        "permission": may_set_prices(request.user),
    }
    return render(request, "prices/repricing.html", context, status=status)
