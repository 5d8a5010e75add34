"""Tags and notes of one run."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect

from runs.access import may_start
from runs.actions import ActionError, note_run, tag_run, untag_run
from runs.reading.trace import find_run
from runs.views.errors import allow
from runs.views.viewer import require, viewer_of


@allow("POST")
def label(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """Add the tag or the note of the form, or take a tag off."""
    run = find_run(request_id)
    if run is None:
        raise Http404(f"There is no run {request_id}. It may be in another installation.")
    require(may_start(request.user))
    sent = request.POST
    try:
        actor = viewer_of(request).get_username()
        if "untag" in sent:
            untag_run(run_id=run.pk, name=sent["untag"], actor=actor)
        elif "note" in sent:
            note_run(run_id=run.pk, text=sent["note"], actor=actor)
        else:
            tag_run(run_id=run.pk, name=sent.get("tag", ""), actor=actor)
    except ActionError as error:
        messages.warning(request, str(error), extra_tags="warn")
    return redirect(f"{run.get_absolute_url()}#labels")
