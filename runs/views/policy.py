"""Rules and grants: what is in force, trying a call, and each rule with its history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from runs import actions
from runs.access import may_change_policy
from runs.actions import ActionError
from runs.actions.rule_contents import written
from runs.models import PolicyChange, PolicyRule
from runs.models.in_force import policy_in_force
from runs.reading.policy import choices, read_policy, read_rule
from runs.reading.trying import try_call
from runs.views.errors import allow
from runs.views.viewer import viewer_of

READ = ("GET", "HEAD")
DAYS = (7, 30, 90, 365)
USUAL_DAYS = 30


@allow(*READ)
def policy_page(request: HttpRequest) -> HttpResponse:
    """The rules in the order in which they are tried, drafts, grants, changes, and what a call would meet."""
    rules = policy_in_force()
    sent = {name: request.GET.get(name, "") for name in ("tool", "arguments", "agent", "environment")}
    tried = try_call(rules, **sent) if sent["tool"] else None
    offered = choices()
    context = {
        "page": read_policy(rules),
        "permission": may_change_policy(request.user),
        "tried": tried,
        "sent": sent if tried else {"agent": offered["agents"][0], "environment": "production"},
        "choices": offered,
    }
    return render(request, "policy/policy.html", context)


@allow(*READ)
def rule_page(request: HttpRequest, pk: int) -> HttpResponse:
    """One rule or grant: what holds, its draft with the back-test, its uses, its history."""
    return _rule(request, pk)


@allow(*READ)
def rule_version(request: HttpRequest, pk: int) -> HttpResponse:
    """The page of a rule at one of its versions."""
    change = get_object_or_404(PolicyChange, pk=pk)
    return redirect(f"{reverse('rule', args=[change.rule_id])}#version-{change.number}")


@allow("POST")
def backtest(request: HttpRequest, pk: int) -> HttpResponse:
    """Try the draft on recorded decisions."""
    sent = request.POST.get("days", "")
    days = int(sent) if sent in map(str, DAYS) else USUAL_DAYS
    try:
        actions.backtest_rule(pk, days=days, by=viewer_of(request))
    except ActionError as error:
        return _refused(request, pk, error)
    return redirect(f"{reverse('rule', args=[pk])}#backtest")


@allow("POST")
def enable(request: HttpRequest, pk: int) -> HttpResponse:
    """Let the draft decide; a grant is given."""
    tested = request.POST.get("backtest", "")
    try:
        rule = actions.enable_rule(
            pk,
            draft=_number(request.POST.get("draft", "")),
            backtest=_number(tested) if tested else None,
            accepts="accepts" in request.POST,
            why=request.POST.get("why", ""),
            by=viewer_of(request),
        )
    except ActionError as error:
        return _refused(request, pk, error)
    said = "is given" if rule.is_grant else "decides from now on"
    messages.success(request, f"{rule.name} {said}.", extra_tags="ok")
    return redirect("rule", pk)


@allow("POST")
def disable(request: HttpRequest, pk: int) -> HttpResponse:
    """Switch a rule off; a grant is revoked."""
    return _end(request, pk, actions.disable_rule, "is switched off", "is revoked")


@allow("POST")
def discard(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a draft up."""
    return _end(request, pk, actions.discard_draft, "has no draft any more", "has no draft any more")


def _end(
    request: HttpRequest, pk: int, act: Callable[..., PolicyRule], said: str, said_of_grant: str
) -> HttpResponse:
    try:
        rule = act(pk, why=request.POST.get("why", ""), by=viewer_of(request))
    except ActionError as error:
        return _refused(request, pk, error)
    messages.success(request, f"{rule.name} {said_of_grant if rule.is_grant else said}.", extra_tags="ok")
    return redirect("rule", pk)


def _refused(request: HttpRequest, pk: int, error: ActionError) -> HttpResponse:
    if isinstance(error, actions.UnknownRule):
        raise Http404(str(error)) from error
    status = 403 if isinstance(error, actions.MayNotChangePolicy) else 422
    return _rule(request, pk, problem=str(error), status=status)


def _rule(request: HttpRequest, pk: int, *, problem: str = "", status: int = 200) -> HttpResponse:
    try:
        rule = actions.find_rule(pk)
    except ActionError as error:
        raise Http404(str(error)) from error
    drafted = rule.draft.why if rule.draft else ""
    context: dict[str, Any] = {
        "page": read_rule(rule),
        "rule": rule,
        "permission": may_change_policy(request.user),
        "again": _address_of_form(rule) if rule.is_grant and rule.expires_at else "",
        "days": DAYS,
        "usual_days": USUAL_DAYS,
        "problem": problem,
        "why": request.POST.get("why", drafted) if problem else drafted,
    }
    return render(request, "policy/rule.html", context, status=status)


def _address_of_form(rule: PolicyRule) -> str:
    """The query that fills the form in with what this grant says."""
    given = rule.active or rule.changes.first()
    if given is None:
        return ""
    wanted = written(given.values, "")
    names = ("kind", "tool", "agent", "environment", "conditions", "reason", "uses", "seconds")
    return urlencode({name: getattr(wanted, name) for name in names})


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 19 else 0
