"""What one step or run says, as text: raw in the browser, or as a download of any size."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from django.http import Http404, HttpRequest, StreamingHttpResponse

from runs.reading.payloads import PARTS, RUN_PARTS, payload_pieces, payload_size, run_text
from runs.reading.trace import find_run
from runs.views.errors import allow
from runs.views.streaming import streamed


@allow("GET", "HEAD")
def payload(request: HttpRequest, request_id: uuid.UUID, step: int, part: str) -> StreamingHttpResponse:
    """The exact text of this part of a step; `?download` saves it.

    It is always plain text, whatever a model or a tool wrote into it.
    """
    run = find_run(request_id)
    size = payload_size(run, step, part) if run is not None and part in PARTS else None
    if run is None or size is None:
        raise Http404(f"Run {request_id} has no step {step} with {part[:20]!r}.")
    pieces = payload_pieces(run, step, part, size)
    return _plain(request, pieces, f"run-{run.pk}-step-{step}-{part}.txt")


@allow("GET", "HEAD")
def text_of_run(request: HttpRequest, request_id: uuid.UUID, part: str) -> StreamingHttpResponse:
    """The whole question, answer or explanation of a run, as plain text; `?download` saves it."""
    run = find_run(request_id)
    if run is None or part not in RUN_PARTS:
        raise Http404(f"Run {request_id} has no text {part[:20]!r}.")
    return _plain(request, run_text(run, part), f"run-{run.pk}-{part}.txt")


def _plain(request: HttpRequest, pieces: Iterator[str], name: str) -> StreamingHttpResponse:
    """What a model or a tool wrote, as plain text that no browser takes for a page."""
    response = StreamingHttpResponse(streamed(request, pieces), content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = (
        f'{"attachment" if "download" in request.GET else "inline"}; filename="{name}"'
    )
    response["Content-Security-Policy"] = "sandbox"
    response["Cache-Control"] = "no-store"
    return response
