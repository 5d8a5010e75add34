"""The receipt of a gated call, for download."""

from __future__ import annotations

import uuid

from django.http import Http404, HttpRequest, HttpResponse

from runs.reading.receipts import NoReceipt, receipt_name, receipt_text
from runs.reading.trace import find_run
from runs.views.errors import allow


@allow("GET", "HEAD")
def receipt(request: HttpRequest, request_id: uuid.UUID, step: int) -> HttpResponse:
    """The same document that `manage.py receipt` prints."""
    run = find_run(request_id)
    if run is None:
        raise Http404(f"There is no run {request_id}. It may be in another installation.")
    try:
        text = receipt_text(run, step)
    except NoReceipt as error:
        raise Http404(str(error)) from error
    response = HttpResponse(text, content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="{receipt_name(run, step)}"'
    return response
