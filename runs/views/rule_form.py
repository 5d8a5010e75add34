"""The form of a rule or a grant: new, from an approval, or another version of one that exists."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse

from runs import actions
from runs.access import may_change_policy
from runs.actions import ActionError, InvalidRule, WantedRule
from runs.actions.rule_contents import written
from runs.models import PolicyRule, RuleKind
from runs.reading.pinning import Pinned, pin_approval
from runs.reading.policy import choices, tools_with_arguments
from runs.views.errors import allow
from runs.views.viewer import viewer_of

USUAL_DAYS = 30
TEXTS = [field.name for field in fields(WantedRule) if field.name not in {"roles", "self_approval"}]


@allow("GET", "HEAD", "POST")
def rule_new(request: HttpRequest) -> HttpResponse:
    """A new rule or grant. The address may fill the form in: its fields by name, or `approval=PK`."""
    if request.method == "POST":
        return _save(request, None)
    pinned = _pinned(request.GET.get("approval", ""))
    wanted = _wanted(request.GET, WantedRule(self_approval=True, **(pinned.fields if pinned else {})))
    return _page(request, None, wanted, why="", pinned=pinned)


@allow("GET", "HEAD", "POST")
def rule_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """Another version of a rule: a draft, until it is enabled."""
    try:
        rule = actions.find_rule(pk)
    except ActionError as error:
        raise Http404(str(error)) from error
    if request.method == "POST":
        return _save(request, rule)
    newest = rule.draft or rule.active or rule.changes.first()
    wanted = written(newest.values, rule.name) if newest else WantedRule(name=rule.name)
    return _page(request, rule, wanted, why="")


def _save(request: HttpRequest, rule: PolicyRule | None) -> HttpResponse:
    wanted = _wanted(request.POST, WantedRule(name=rule.name if rule else ""))
    # The form of a grant asks for one reason: that of the grant is that of the change.
    why = request.POST.get("why", wanted.reason if wanted.kind == RuleKind.GRANT else "")
    viewer = viewer_of(request)
    try:
        saved = actions.draft_rule(wanted, why=why, by=viewer, pk=rule.pk if rule else None)
        if wanted.kind in {RuleKind.ALLOW, RuleKind.GRANT}:
            actions.backtest_rule(saved.pk, days=USUAL_DAYS, by=viewer)
    except InvalidRule as error:
        return _page(request, rule, wanted, why=why, problems=error.problems, status=422)
    except ActionError as error:
        status = 403 if isinstance(error, actions.MayNotChangePolicy) else 422
        return _page(request, rule, wanted, why=why, problems={"": str(error)}, status=status)
    return redirect(f"{reverse('rule', args=[saved.pk])}#draft")


def _page(
    request: HttpRequest,
    rule: PolicyRule | None,
    wanted: WantedRule,
    *,
    why: str,
    problems: dict[str, str] | None = None,
    pinned: Pinned | None = None,
    status: int = 200,
) -> HttpResponse:
    context: dict[str, Any] = {
        "rule": rule,
        "wanted": wanted,
        "why": why,
        "problems": problems or {},
        "general": (problems or {}).get("", ""),
        "pinned": pinned,
        "kinds": _kinds(rule, wanted),
        "choices": choices(),
        "tools_with_arguments": tools_with_arguments(),
        "permission": may_change_policy(request.user),
    }
    return render(request, "policy/form.html", context, status=status)


def _kinds(rule: PolicyRule | None, wanted: WantedRule) -> list[tuple[str, str]]:
    """What it may be: a rule stays a rule and a grant a grant."""
    is_grant = rule.is_grant if rule else wanted.kind == RuleKind.GRANT
    told = {
        RuleKind.DENY: "Deny: it never runs",
        RuleKind.ASK: "Ask people: it runs after they said yes",
        RuleKind.ALLOW: "Allow: it runs without asking",
        RuleKind.GRANT: "Grant: it runs without asking, so often and for so long",
    }
    return [(kind, word) for kind, word in told.items() if (kind == RuleKind.GRANT) == is_grant]


def _wanted(sent: QueryDict, usual: WantedRule) -> WantedRule:
    """What the form or the address says; what it leaves out is as usual."""
    values: dict[str, Any] = {name: sent.get(name, getattr(usual, name)) for name in TEXTS}
    is_form = "csrfmiddlewaretoken" in sent or "sent" in sent
    values["roles"] = sent.getlist("roles") or usual.roles
    values["self_approval"] = "self_approval" in sent if is_form else usual.self_approval
    return WantedRule(**values)


def _pinned(text: str) -> Pinned | None:
    return pin_approval(int(text)) if text.isdecimal() and text.isascii() and len(text) < 19 else None
