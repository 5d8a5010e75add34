"""What one step holds, as text: raw in the browser, or as a download of any size."""

from __future__ import annotations

import uuid

from django.http import Http404, HttpRequest, StreamingHttpResponse

from runs.reading.payloads import PARTS, payload_pieces, payload_size
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
    body = streamed(request, payload_pieces(run, step, part, size))
    response = StreamingHttpResponse(body, content_type="text/plain; charset=utf-8")
    name = f"run-{run.pk}-step-{step}-{part}.txt"
    response["Content-Disposition"] = (
        f'{"attachment" if "download" in request.GET else "inline"}; filename="{name}"'
    )
    response["Content-Security-Policy"] = "sandbox"
    response["Cache-Control"] = "no-store"
    return response
