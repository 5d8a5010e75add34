"""Is this process able to serve? For load balancers and people with curl."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from runs.reading.health import what_is_wrong
from runs.views.errors import allow


@never_cache
@login_not_required
@allow("GET", "HEAD")
def healthz(request: HttpRequest) -> HttpResponse:
    """200 when the database answers and has all its tables, else 503 with the reason in a sentence."""
    problem = what_is_wrong()
    if problem:
        return JsonResponse({"status": "unavailable", "problem": problem}, status=503)
    return JsonResponse({"status": "ok"})
