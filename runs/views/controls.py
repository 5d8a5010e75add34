"""What a person does with a run besides deciding on its calls."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect

from runs.access import may_start
from runs.actions import ActionError, resume_run
from runs.reading.trace import find_run
from runs.views.errors import allow
from runs.views.viewer import viewer_of


@allow("POST")
def resume(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """Let a paused run go on."""
    run = find_run(request_id)
    if run is None:
        raise Http404(f"There is no run {request_id}. It may be in another installation.")
    permission = may_start(request.user)
    try:
        if not permission:
            raise ActionError(permission.why_not)
        resume_run(run_id=run.pk, actor=viewer_of(request).get_username())
    except ActionError as error:
        messages.warning(request, str(error), extra_tags="warn")
    else:
        messages.success(request, "The run goes on as soon as a worker is free.", extra_tags="ok")
    return redirect(run)
