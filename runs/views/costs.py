"""What was spent."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from runs.reading import cost_findings
from runs.reading.chart import draw
from runs.reading.cost_lists import listed
from runs.reading.cost_misses import missed_runs
from runs.reading.cost_periods import OWN, PERIODS, UNITS, find_period, find_zone, zones
from runs.reading.costs import BREAKDOWNS, USUAL_BREAKDOWN, CostReport, read_costs
from runs.reading.tally import Tally
from runs.views.errors import allow

SOURCES = {"real": False, "simulated": True}
ZONE_COOKIE, BROWSER_COOKIE = "agentops_zone", "agentops_browser_zone"
YEAR = 365 * 24 * 3600


@allow("GET", "HEAD")
def costs(request: HttpRequest) -> HttpResponse:
    """Cost over time and by agent, model, user, tag, tool or token class. Simulated and real are apart."""
    zone = zone_of(request)
    # To the end of this second: searches say times in seconds, and list what the report counts.
    now = timezone.now().replace(microsecond=0) + timedelta(seconds=1)
    period = find_period(request.GET.dict(), zone, now)
    breakdown = BREAKDOWNS.get(request.GET.get("by", ""), BREAKDOWNS[USUAL_BREAKDOWN])
    report = read_costs(period, breakdown, simulated=SOURCES.get(request.GET.get("source", "")))
    guessed = "zone" not in request.GET and ZONE_COOKIE not in request.COOKIES
    context = _picker(report) | {"report": report, "chart": draw(report), "zone_guessed": guessed}
    if report.total.calls or report.total.runs:
        context |= _findings(report)
    response = render(request, "costs/costs.html", context)
    if "zone" in request.GET:
        response.set_cookie(ZONE_COOKIE, zone.key, max_age=YEAR, samesite="Lax", httponly=True)
    return response


@allow("GET", "HEAD")
def missed(request: HttpRequest) -> HttpResponse:
    """The runs behind one reason why input was not read from the cache, in a period of the report."""
    now = timezone.now().replace(microsecond=0) + timedelta(seconds=1)
    period = find_period(request.GET.dict(), zone_of(request), now)
    simulated = SOURCES.get(request.GET.get("source", ""), False)
    found = missed_runs(period, simulated=simulated, reason=request.GET.get("reason", ""))
    if found is None:
        raise Http404("There is no such reason. Choose one on the page of costs.")
    context = {"found": found, "period": period, "sim": simulated}
    return render(request, "costs/missed.html", context)


def zone_of(request: HttpRequest) -> ZoneInfo:
    """The time zone that the reader has chosen, now or earlier, else that of the browser, else UTC."""
    chosen = request.GET.get("zone", "")
    return find_zone(chosen, *(request.COOKIES.get(name, "") for name in (ZONE_COOKIE, BROWSER_COOKIE)))


def _findings(report: CostReport) -> dict[str, Any]:
    period, total = report.period, report.total
    succeeded, waste = cost_findings.successes(report), cost_findings.waste(report)
    wasted = Tally()
    for line in waste:
        wasted.add(line.tally.values)

    def query(field: str, value: str) -> str:
        return listed(period.since, period.until, report.simulated, (field, value))

    return {
        "saved": abs(total.saved),
        "succeeded": succeeded,
        "per_success": total.cost / succeeded.runs if succeeded.runs and total.priced else None,
        "success_query": query("status", "succeeded"),
        "unpriced_query": query("charge", "unpriced"),
        "costly_runs": cost_findings.costly_runs(report),
        "costly_steps": cost_findings.costly_steps(report),
        "outliers": cost_findings.outliers(report),
        "outlier": cost_findings.OUTLIER,
        "median_of": cost_findings.MEDIAN_OF,
        "waste": waste,
        "wasted": wasted,
        "wasted_share": wasted.amount / total.amount if total.amount else None,
        "misses": cost_findings.missed(report),
        "missed_query": f"{period.query}&source={'simulated' if report.simulated else 'real'}",
        "unread": cost_findings.unread(report),
        "zone_options": _zone_options(),
    }


@cache
def _zone_options() -> SafeString:
    return format_html_join("", "<option>{}</option>", ((name,) for name in zones()))


def _picker(report: CostReport) -> dict[str, Any]:
    """What can be chosen, each with the address that chooses it and keeps the rest."""
    period = report.period

    def address(**changed: str) -> str:
        kept = {"by": report.breakdown.name, "unit": period.unit}
        if report.both_kinds:
            kept["source"] = "simulated" if report.simulated else "real"
        return f"?{period.query}&{urlencode(kept | changed)}"

    return {
        "periods": [
            (label, f"?period={name}&by={report.breakdown.name}{_source(report)}", name == period.name)
            for name, label in PERIODS.items()
        ],
        "breakdowns": [
            (each.label, address(by=each.name), each == report.breakdown) for each in BREAKDOWNS.values()
        ],
        "units": [(UNITS[unit], address(unit=unit), unit == period.unit) for unit in period.units],
        "sources": [
            ("Claude API", address(source="real"), not report.simulated),
            ("Simulated", address(source="simulated"), report.simulated),
        ],
        "is_own": period.name == OWN,
    }


def _source(report: CostReport) -> str:
    return f"&source={'simulated' if report.simulated else 'real'}" if report.both_kinds else ""
