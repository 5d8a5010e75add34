"""What people do with a search: complete it, keep it, and act on all the runs that it finds."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from runs.access import may_start
from runs.actions import ActionError, cancel_run, remove_search, save_search, tag_run, untag_run
from runs.actions.tags import checked_tag
from runs.reading.bulk import MOST_CHANGED, MOST_EXPORTED, json_lines, result_of
from runs.reading.completion import complete
from runs.reading.runs import RunQuery
from runs.views.errors import allow, error_page
from runs.views.streaming import download
from runs.views.viewer import require, viewer_of

READ = ("GET", "HEAD")
ACTS = {"cancel": "Cancel", "tag": "Tag", "untag": "Take a tag off"}


@allow(*READ)
def completion(request: HttpRequest) -> JsonResponse:
    """What may come next behind `q`, for the search box."""
    found = complete(request.GET.get("q", "")[:500].replace("\x00", ""))
    return JsonResponse({"suggestions": [vars(suggestion) for suggestion in found]})


@allow("POST")
def search_save(request: HttpRequest) -> HttpResponse:
    """Keep a search."""
    query = RunQuery.parse({"q": request.POST.get("q", ""), "sort": request.POST.get("sort", "")})
    back = f"{reverse('runs')}?q=&{query.address}" if not query.text else f"{reverse('runs')}?{query.address}"
    try:
        if query.error is not None:
            raise ActionError(f"Only a search that works can be kept. {query.error}")
        saved = save_search(
            owner=viewer_of(request),
            name=request.POST.get("name", "").replace("\x00", ""),
            query=query.text,
            sort=str(query.sort),
            is_shared="shared" in request.POST,
            is_start="start" in request.POST,
        )
    except ActionError as error:
        messages.warning(request, str(error), extra_tags="warn")
    else:
        messages.success(request, f"The search {saved.name} is saved.", extra_tags="ok")
    return redirect(back)


@allow("POST")
def search_remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget a search."""
    try:
        name = remove_search(pk=pk, owner=viewer_of(request))
    except ActionError as error:
        messages.warning(request, str(error), extra_tags="warn")
    else:
        messages.info(request, f"The search {name} is removed.")
    return redirect(f"{reverse('runs')}?q=")


@allow(*READ)
def export(request: HttpRequest) -> HttpResponseBase:
    """The logs of the runs that a search finds, one per line."""
    query = RunQuery.parse(request.GET.dict())
    if query.error is not None:
        return error_page(request, 400, sentence=str(query.error))
    now = timezone.now()
    pks = result_of(query.first(), most=MOST_EXPORTED, now=now)[:MOST_EXPORTED]
    name = f"runs-{now:%Y-%m-%d}.jsonl"
    return download(request, json_lines(pks), name=name, content_type="application/jsonl", at_once=5)


@allow(*READ, "POST")
def bulk(request: HttpRequest) -> HttpResponse:
    """Act on all runs of a search: first what it would do to how many, then, confirmed, done."""
    require(may_start(request.user))
    sent = request.POST if request.method == "POST" else request.GET
    act = sent.get("act", "")
    query = RunQuery.parse(sent.dict()).first()
    if act not in ACTS or query.error is not None:
        return error_page(request, 400, sentence=str(query.error or ""))
    pks = result_of(query, most=MOST_CHANGED, now=timezone.now())
    tag, problem = sent.get("tag", "").strip().lower(), ""
    if act != "cancel" and (tag or request.method == "POST"):
        try:
            tag = checked_tag(tag)
        except ActionError as error:
            problem = str(error)
    many = len(pks) > MOST_CHANGED
    stale = request.method == "POST" and sent.get("count", "") != str(len(pks))
    if request.method == "POST" and not (problem or many or stale):
        return _done(request, query, act, tag, pks)
    context = {
        "query": query, "act": act, "title": ACTS[act], "tag": tag, "problem": problem, "many": many,
        "count": min(len(pks), MOST_CHANGED), "most": MOST_CHANGED, "stale": stale,
    }  # fmt: skip
    return render(request, "runs/bulk.html", context, status=422 if problem or stale else 200)


def _done(request: HttpRequest, query: RunQuery, act: str, tag: str, pks: list[int]) -> HttpResponse:
    actor = viewer_of(request).get_username()
    acts: dict[str, Callable[[int], bool | None]] = {
        "cancel": lambda pk: cancel_run(run_id=pk, actor=actor),
        "tag": lambda pk: tag_run(run_id=pk, name=tag, actor=actor),
        "untag": lambda pk: untag_run(run_id=pk, name=tag, actor=actor),
    }
    done, last = 0, ""
    for pk in pks:
        try:
            done += acts[act](pk) is not False
        except ActionError as error:
            last = str(error)
    verb = {"cancel": "cancelled", "tag": f"tagged {tag}", "untag": f"without the tag {tag} now"}[act]
    left = len(pks) - done
    rest = f" {left:,} stayed as they were{': ' + last if last else '.'}" if left else ""
    messages.success(request, f"{done:,} of {len(pks):,} runs are {verb}.{rest}", extra_tags="ok")
    return redirect(f"{reverse('runs')}?{query.address or 'q='}")
