"""Budgets that runs share: what is left, and the form that sets them."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from runs.access import may_set_budgets
from runs.actions import ActionError, remove_budget, set_budget
from runs.models import AtLimit, Budget, Period, Scope
from runs.parameters import number_of
from runs.reading.budget_page import find_budget, read_drawings, read_state
from runs.reading.budgets import read_budgets, read_changes, subject_names, tool_names
from runs.views.errors import allow
from runs.views.viewer import viewer_of

LIMITS = ("cost_usd", "tokens", "tool_calls")


@allow("GET", "HEAD")
def budgets(request: HttpRequest) -> HttpResponse:
    """Every budget with what is spent, held and left; who waits for it; who changed what."""
    return _page(request)


@allow("GET", "HEAD")
def budget_page(request: HttpRequest, pk: int) -> HttpResponse:
    """One budget: what is left and for how long, what calls hold, whom it held back, who changed it."""
    budget = find_budget(pk)
    if budget is None:
        raise Http404(f"There is no budget {pk}. It may have been removed.")
    return _one(request, budget)


@allow("POST")
def budget_set(request: HttpRequest) -> HttpResponse:
    """Add a budget or change one; what was wrong is said beside what was sent."""
    permission = may_set_budgets(request.user)
    sent = request.POST
    changed = find_budget(number_of(sent.get("budget", "")) or 0)
    if not permission:
        return _page(request, permission.why_not, status=403)
    scope, subject = sent.get("scope", Scope.INSTALLATION), sent.get("subject", "").strip()
    try:
        if subject and scope == Scope.INSTALLATION:
            raise ActionError("The installation has no name. Leave it out, or choose whose the budget is.")
        budget = set_budget(
            actor=viewer_of(request).get_username(),
            scope=scope,
            agent=subject if scope == Scope.AGENT else "",
            user=subject if scope == Scope.USER else "",
            tag=subject if scope == Scope.TAG else "",
            period=sent.get("period", ""),
            tool=sent.get("tool", ""),
            limits={name: sent.get(name, "") for name in LIMITS},
            at_limit=sent.get("at_limit", AtLimit.WRAP_UP),
            thresholds=sent.get("thresholds"),
        )
    except ActionError as error:
        if changed is not None:
            return _one(request, changed, str(error), status=422)
        return _page(request, str(error), status=422)
    messages.success(request, f"The budget {budget.title} is set.", extra_tags="ok")
    return redirect("budget", pk=budget.pk)


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
        "subjects": subject_names(),
        "tools": tool_names(),
        "scopes": Scope.choices,
        "periods": Period.values,
        "permission": may_set_budgets(request.user),
        "simulated": simulated,
        "problem": problem,
        "sent": request.POST if problem else {"thresholds": "50, 80, 100"},
    }
    return render(request, "budgets/budgets.html", context, status=status)


def _one(request: HttpRequest, budget: Budget, problem: str = "", *, status: int = 200) -> HttpResponse:
    simulated, now = not settings.ANTHROPIC_API_KEY, timezone.now()
    state = read_state(budget, simulated=simulated, now=now)
    context = {
        "state": state,
        "budget": budget,
        "drawings": read_drawings(budget, simulated=simulated, now=now),
        "changes": read_changes(budget.pk),
        "permission": may_set_budgets(request.user),
        "simulated": simulated,
        "problem": problem,
        "values": request.POST if problem else budget.values | {"thresholds": state.thresholds},
    }
    return render(request, "budgets/budget.html", context, status=status)
