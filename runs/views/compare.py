"""Two runs side by side."""

from __future__ import annotations

import re
import uuid
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from runs.models import Run
from runs.reading.compare import compare_steps, read_comparison
from runs.reading.trace import find_run
from runs.views.errors import allow

STEPS = re.compile(r"(\d{1,9})-(\d{1,9})")


@allow("GET", "HEAD")
def compare(request: HttpRequest) -> HttpResponse:
    """`?left=` and `?right=` name two runs, by id or number; `&steps=3-4` shows how two steps differ."""
    names = {side: request.GET.get(side, "").strip() for side in ("left", "right")}
    runs = {side: _find(name) for side, name in names.items()}
    left, right = runs["left"], runs["right"]
    context: dict[str, Any] = {"names": names, "left": left, "right": right, "tried": any(names.values())}
    if left is None or right is None:
        missing = [name for side, name in names.items() if name and runs[side] is None]
        return render(
            request, "runs/compare.html", context | {"missing": missing}, status=404 if missing else 200
        )
    found = STEPS.fullmatch(request.GET.get("steps", ""))
    steps = (int(found[1]), int(found[2])) if found else None
    if steps:
        context |= {"steps": steps, "parts": compare_steps(left, steps[0], right, steps[1])}
    if steps and "HX-Request" in request.headers:
        return render(request, "runs/compared_step.html", context)
    return render(request, "runs/compare.html", context | {"comparison": read_comparison(left, right)})


def _find(name: str) -> Run | None:
    """A run by its id or its number."""
    if name.isdecimal() and len(name) < 10:
        return Run.objects.select_related("created_by", "parent_run").filter(pk=int(name)).first()
    try:
        return find_run(uuid.UUID(name))
    except ValueError:
        return None
