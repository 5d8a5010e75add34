"""Budgets that runs share: what is left, and the form that sets them."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from runs.access import may_set_budgets
from runs.actions import ActionError, remove_budget, set_budget
from runs.models import AtLimit, Scope
from runs.reading.budgets import agent_names, read_budgets, read_changes, tool_names
from runs.views.errors import allow
from runs.views.viewer import viewer_of

LIMITS = ("cost_usd", "tokens", "tool_calls")


@allow("GET", "HEAD")
def budgets(request: HttpRequest) -> HttpResponse:
    """Every budget with what is spent, held and left; who waits for it; who changed what."""
    return _page(request)


@allow("POST")
def budget_set(request: HttpRequest) -> HttpResponse:
    """Add a budget or change one; what was wrong is said beside what was sent."""
    permission = may_set_budgets(request.user)
    if not permission:
        return _page(request, permission.why_not, status=403)
    agent = request.POST.get("whose", "")
    try:
        budget = set_budget(
            actor=viewer_of(request).get_username(),
            scope=Scope.AGENT if agent else Scope.INSTALLATION,
            agent=agent,
            period=request.POST.get("period", ""),
            tool=request.POST.get("tool", ""),
            limits={name: request.POST.get(name, "") for name in LIMITS},
            at_limit=request.POST.get("at_limit", AtLimit.WRAP_UP),
        )
    except ActionError as error:
        return _page(request, str(error), status=422)
    messages.success(request, f"The budget {budget.title} is set.", extra_tags="ok")
    return redirect("budgets")


@allow("POST")
def budget_remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Limit this no longer."""
    permission = may_set_budgets(request.user)
    if not permission:
        return _page(request, permission.why_not, status=403)
    try:
        title = remove_budget(budget_id=pk, actor=viewer_of(request).get_username())
    except ActionError as error:
        messages.warning(request, str(error), extra_tags="warn")
    else:
        messages.success(request, f"The budget {title} is removed.", extra_tags="ok")
    return redirect("budgets")


def _page(request: HttpRequest, problem: str = "", *, status: int = 200) -> HttpResponse:
    simulated = not settings.ANTHROPIC_API_KEY
    context = {
        "lines": read_budgets(simulated=simulated, now=timezone.now()),
        "changes": read_changes(),
        "agents": agent_names(),
        "tools": tool_names(),
        "permission": may_set_budgets(request.user),
        "simulated": simulated,
        "problem": problem,
        "sent": request.POST if problem else {},
    }
    return render(request, "budgets/budgets.html", context, status=status)
