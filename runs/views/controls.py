"""What a person does with a run besides deciding on its calls."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect

from runs.access import may_start
from runs.actions import (
    ActionError,
    ask_follow_up,
    cancel_run,
    fork_run,
    pause_run,
    resume_run,
    retry_run,
)
from runs.models import Run
from runs.reading.trace import find_run
from runs.views.errors import allow
from runs.views.viewer import require, viewer_of

GOES_ON = "The run goes on as soon as a worker is free."


@allow("POST")
def cancel(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """End a run at once."""

    def act(run: Run, actor: str) -> str:
        cancel_run(run_id=run.pk, actor=actor)
        return "The run is cancelled."

    return _steer(request, request_id, act)


@allow("POST")
def pause(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """Stop a run before its next move."""

    def act(run: Run, actor: str) -> str:
        now = pause_run(run_id=run.pk, actor=actor)
        return "The run is paused." if now else "The run pauses after its current move."

    return _steer(request, request_id, act)


@allow("POST")
def resume(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """Let a paused run go on, with a higher limit where one paused it."""

    def act(run: Run, actor: str) -> str:
        value = request.POST.get("value", "").strip()
        resume_run(run_id=run.pk, actor=actor, limits={run.reason: value} if value else {})
        return GOES_ON

    return _steer(request, request_id, act)


@allow("POST")
def retry(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """Let a failed or stopped run go on, with a higher limit where one stopped it."""

    def act(run: Run, actor: str) -> str:
        value = request.POST.get("value", "").strip()
        retry_run(run_id=run.pk, actor=actor, limits={run.reason: value} if value else {})
        return GOES_ON

    return _steer(request, request_id, act)


@allow("POST")
def fork(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """Start another run from a step of this one, with a new instruction."""

    def act(run: Run, actor: str) -> Run:
        step = request.POST.get("step", "").strip()
        if not step.isdecimal() or len(step) > 9:
            raise ActionError("Say from which step to fork: its number stands in the trace.")
        return fork_run(
            run_id=run.pk,
            actor=actor,
            user=viewer_of(request),
            step=int(step),
            instruction=request.POST.get("instruction", ""),
        )

    return _steer(request, request_id, act)


@allow("POST")
def ask(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """Ask a follow-up question on a run that has ended."""

    def act(run: Run, actor: str) -> Run:
        question = request.POST.get("question", "")
        return ask_follow_up(run_id=run.pk, actor=actor, user=viewer_of(request), question=question)

    return _steer(request, request_id, act)


def _steer(request: HttpRequest, request_id: uuid.UUID, act: Callable[[Run, str], str | Run]) -> HttpResponse:
    """Act when this person may, say what happened, and show the run: the new one when there is one."""
    run = find_run(request_id)
    if run is None:
        raise Http404(f"There is no run {request_id}. It may be in another installation.")
    require(may_start(request.user))
    try:
        done = act(run, viewer_of(request).get_username())
    except ActionError as error:
        messages.warning(request, str(error), extra_tags="warn")
        return redirect(run)
    if isinstance(done, Run):
        messages.success(request, f"This run goes on where run {run.pk} was.", extra_tags="ok")
        return redirect(done)
    messages.success(request, done, extra_tags="ok")
    return redirect(run)
