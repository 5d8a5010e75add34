"""Runs: the list, the form that starts one, the page of one, its log as JSON."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from runs.access import may_start
from runs.actions import ActionError, start_run
from runs.actions.starting import MAX_QUESTION_CHARACTERS
from runs.forms import StartForm
from runs.models import Run
from runs.reading.excerpts import read_hits
from runs.reading.export import FORMS, log_text
from runs.reading.facets import read_facets
from runs.reading.find_in_run import find_in_run
from runs.reading.jumps import NAMES, find_step
from runs.reading.labels import read_searches, start_page
from runs.reading.language import FIELDS
from runs.reading.run_page import read_panel, read_run_page, read_section_page
from runs.reading.runs import RunQuery, newest_runs, read_page
from runs.reading.trace import find_run
from runs.reading.workers import count_unattended
from runs.views.errors import allow, error_page
from runs.views.viewer import viewer_of

READ = ("GET", "HEAD")


@allow(*READ)
def run_list(request: HttpRequest) -> HttpResponse:
    """The runs of a search, with filters beside them. Without one: what this person wants to see first."""
    viewer = viewer_of(request)
    if not request.GET and (wanted := start_page(viewer)) is not None:
        return redirect(f"{reverse('runs')}?{wanted}")
    query = RunQuery.parse(request.GET.dict())
    newest = newest_runs()
    now = timezone.now()
    page = read_page(query, now=now)
    context = {
        "query": query,
        "page": page,
        "hits": read_hits(query, page.pks),
        "facets": read_facets(query, now=now),
        "searches": read_searches(viewer),
        "fields": FIELDS,
        "newest": newest,
        "has_runs": newest is not None,
        "unattended": count_unattended(now),
    }
    return render(request, "runs/list.html", context)


@allow(*READ, "POST")
def run_new(request: HttpRequest) -> HttpResponse:
    """The form that starts a run. Sent twice, it starts one."""
    permission = may_start(request.user)
    if request.method != "POST":
        question = request.GET.get("q", "")[:MAX_QUESTION_CHARACTERS]
        form = StartForm(initial={"request_id": uuid.uuid4(), "question": question})
        return render(request, "runs/new.html", {"form": form, "permission": permission})
    form = StartForm(request.POST)
    if permission and form.is_valid():
        viewer = viewer_of(request)
        try:
            run = start_run(
                question=form.cleaned_data["question"],
                agent=form.cleaned_data["agent"],
                scenario=form.cleaned_data["scenario"],
                user=viewer,
                started_by=viewer.get_username(),
                request_id=form.cleaned_data["request_id"],
                tags=form.cleaned_data["tags"],
            )
        except ActionError as error:
            form.add_error("question", str(error))
        else:
            return redirect(run)
    status = 422 if permission else 403
    return render(request, "runs/new.html", {"form": form, "permission": permission}, status=status)


@allow(*READ)
def run_page(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """One run, live. `?step=7` shows that step beside the trace, `?section=3` that part of a long trace.

    `?view=conversation` shows the same rows with what was said in them.
    """
    run, viewer, now = _run(request_id), viewer_of(request), timezone.now()
    selected = _number(request.GET.get("step", ""))
    fragment = request.headers.get("HX-Target") == "panel" and "HX-Request" in request.headers
    panel = read_panel(run, selected, viewer=viewer, now=now) if fragment and selected else None
    context: dict[str, Any] = {"page": panel}
    if panel is None:
        section = _number(request.GET.get("section", ""))
        wanted = () if section is None else {section}
        context["page"] = read_run_page(
            run, selected=selected, viewer=viewer, now=now, wanted=wanted, talks=_talks(request)
        )
    if (words := request.GET.get("find", "")) and not fragment:
        context["found"] = find_in_run(run, words, _number(request.GET.get("after", "")) or 0)
    response = render(request, "runs/run.html#panel" if fragment else "runs/run.html", context)
    response["Vary"] = "HX-Request, HX-Target"
    response["Cache-Control"] = "no-store"
    return response


@allow(*READ)
def run_section(request: HttpRequest, request_id: uuid.UUID, number: int) -> HttpResponse:
    """One section of a long trace, for the place that the page keeps for it."""
    run = _run(request_id)
    page = read_section_page(
        run, number, viewer=viewer_of(request), now=timezone.now(), talks=_talks(request)
    )
    section = next((one for one in page.trace.sections if one.number == number), None)
    if section is None:
        raise Http404(f"Run {run.pk} has no section {number}.")
    context = {"page": page, "section": section, "viewer": viewer_of(request)}
    response = render(request, "runs/section.html", context)
    response["Cache-Control"] = "no-store"
    return response


@allow(*READ)
def run_jump(request: HttpRequest, request_id: uuid.UUID, kind: str) -> HttpResponse:
    """To the next error, question, or the dearest step after `?after=7`; scripts get its number."""
    run = _run(request_id)
    if kind not in NAMES:
        raise Http404(f"There is no way to jump to {kind[:20]!r}.")
    step = find_step(run, kind, _number(request.GET.get("after", "")) or 0)
    sentence = "" if step else f"This run has no {NAMES[kind]}."
    if "HX-Request" in request.headers:
        return JsonResponse({"step": step, "sentence": sentence})
    if step is None:
        messages.info(request, sentence)
        return redirect(run)
    return redirect(f"{run.get_absolute_url()}?step={step}#row-{step}")


@allow(*READ)
def run_find(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """The steps of one run that hold `?find=words`, for the list above its trace."""
    run = _run(request_id)
    found = find_in_run(run, request.GET.get("find", ""), _number(request.GET.get("after", "")) or 0)
    return render(request, "runs/found.html", {"page": {"run": run}, "found": found})


@allow(*READ)
def run_json(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """The log of one run, as `manage.py exportrun` prints it: `?format=seed` is its `--format seed`."""
    form = request.GET.get("format") or "full"
    if form not in FORMS:
        return error_page(request, 400, sentence=f"format has to be {' or '.join(FORMS)}.")
    return HttpResponse(log_text(_run(request_id), form), content_type="application/json")


def _run(request_id: uuid.UUID) -> Run:
    run = find_run(request_id)
    if run is None:
        raise Http404(f"There is no run {request_id}. It may be in another installation.")
    return run


def _talks(request: HttpRequest) -> bool:
    """Whether the run is to be read as a conversation."""
    return request.GET.get("view") == "conversation"


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None
