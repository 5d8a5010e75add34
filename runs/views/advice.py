"""Advice on what an agent costs. Looking at it changes nothing."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from runs.reading.advice.attempts import SIZES
from runs.reading.advice.page import agent_names, find_size, read_advice
from runs.views.errors import allow

KINDS = {"0": False, "1": True}


@allow("GET", "HEAD")
def advice_list(request: HttpRequest) -> HttpResponse:
    """The agents that there is advice on."""
    return render(request, "costs/advice_list.html", {"agents": agent_names()})


@allow("GET", "HEAD")
def advice(request: HttpRequest, name: str) -> HttpResponse:
    """What the last runs of an agent would have cost elsewhere, and what could be cheaper."""
    size = find_size(request.GET.get("runs", ""))
    simulated = KINDS.get(request.GET.get("simulated", ""))
    page = read_advice(name, size, simulated=simulated, now=timezone.now())
    if page is None:
        raise Http404(f"There is no agent {name[:60]!r} here, and none of that name has run.")
    return render(request, "costs/advice.html", {"page": page, "sizes": SIZES})
