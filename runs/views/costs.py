"""What was spent."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from runs.reading.chart import draw
from runs.reading.costs import PERIODS, find_period, read_costs
from runs.views.errors import allow

SOURCES = {"real": False, "simulated": True}


@allow("GET", "HEAD")
def costs(request: HttpRequest) -> HttpResponse:
    """Cost per day, agent, model and run, for a period. Simulated and real are apart."""
    period = find_period(request.GET.get("period", ""))
    simulated = SOURCES.get(request.GET.get("source", ""))
    report = read_costs(period, simulated=simulated, now=timezone.now())
    context = {"report": report, "chart": draw(report), "periods": PERIODS}
    return render(request, "costs/costs.html", context)
