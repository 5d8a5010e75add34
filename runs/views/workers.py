"""Who works, and what waits for them."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache

from runs.reading.workers import as_data, read_workers
from runs.views.errors import allow


@never_cache
@allow("GET", "HEAD")
def worker_page(request: HttpRequest) -> HttpResponse:
    """Worker processes, the queue, and the backends of the tools."""
    return render(request, "workers/workers.html", {"workers": read_workers(timezone.now())})


@never_cache
@allow("GET", "HEAD")
def workers_json(request: HttpRequest) -> HttpResponse:
    """The same for programs."""
    return JsonResponse(as_data(read_workers(timezone.now())))
