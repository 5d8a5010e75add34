"""What came back after a change: ask the agent to go on, or say that a person takes care of it."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect

from runs.access import may_decide, may_start
from runs.actions import ActionError, answer_relapse
from runs.reading.rechecks import Look, find_look
from runs.views.errors import allow
from runs.views.viewer import require, viewer_of


@allow("POST")
def follow_up(request: HttpRequest, pk: int) -> HttpResponse:
    """Start a run that knows all of this one and is told what came back."""
    look = _look(pk)
    require(may_start(request.user))
    viewer = viewer_of(request)
    try:
        run = answer_relapse(recheck_id=pk, by=viewer, question=look.question).follow_up
        assert run is not None
    except ActionError as error:
        messages.warning(request, str(error), extra_tags="warn")
        return redirect(look.run)
    messages.success(request, f"This run looks into what came back after run {look.run.pk}.", extra_tags="ok")
    return redirect(run)


@allow("POST")
def taken(request: HttpRequest, pk: int) -> HttpResponse:
    """A person takes care of it without the agent."""
    look = _look(pk)
    require(may_decide(request.user))
    try:
        answer_relapse(recheck_id=pk, by=viewer_of(request))
    except ActionError as error:
        messages.warning(request, str(error), extra_tags="warn")
    else:
        messages.success(request, "Noted: you take care of it.", extra_tags="ok")
    return redirect(look.run)


def _look(pk: int) -> Look:
    look = find_look(pk)
    if look is None:
        raise Http404("There is no such check. It may have been deleted with its run.")
    return look
