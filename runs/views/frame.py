"""What every page has around its content: the section of the rail, pending approvals, the simulated tag."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property

from runs.access import Permission, may_decide, may_start
from runs.reading.outcomes import count_unknown
from runs.reading.queue import count_pending

SECTIONS = {
    "runs": "runs",
    "run": "runs",
    "run-new": "runs",
    "runs-bulk": "runs",
    "compare": "runs",
    "approvals": "approvals",
    "approval": "approvals",
    "approvals-history": "approvals",
    "reviewing": "approvals",
    "decide": "approvals",
    "outcomes": "approvals",
    "outcome": "approvals",
    "resolve": "approvals",
    "channels": "approvals",
    "channel": "approvals",
    "channel-new": "approvals",
    "channel-secret": "approvals",
    "deliveries": "approvals",
    "policy": "policy",
    "rule": "policy",
    "rule-new": "policy",
    "rule-edit": "policy",
    "rule-backtest": "policy",
    "rule-enable": "policy",
    "rule-disable": "policy",
    "rule-discard": "policy",
    "costs": "costs",
    "costs-missed": "costs",
    "costs-export": "costs",
    "statements": "costs",
    "statement": "costs",
    "summaries": "costs",
    "advice-list": "costs",
    "advice": "costs",
    "prices": "costs",
    "price": "costs",
    "price-new": "costs",
    "price-end": "costs",
    "price-withdraw": "costs",
    "repricings": "costs",
    "repricing": "costs",
    "repricing-apply": "costs",
    "budgets": "costs",
    "budget": "costs",
    "budget-set": "costs",
    "agents": "agents",
    "agent": "agents",
    "tools": "agents",
    "tool": "agents",
    "errors": "agents",
    "tickets": "tickets",
    "ticket": "tickets",
    "workers": "workers",
}


class Frame:
    """Asked by the base template only, so that a fragment costs no query for it."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self.now: datetime = timezone.now()

    @property
    def section(self) -> str:
        match = self._request.resolver_match
        return SECTIONS.get(match.url_name or "", "") if match else ""

    @property
    def simulated(self) -> bool:
        return not settings.ANTHROPIC_API_KEY

    @cached_property
    def pending(self) -> int:
        return count_pending(self.now) if self._request.user.is_authenticated else 0

    @cached_property
    def unknown(self) -> int:
        return count_unknown() if self._request.user.is_authenticated else 0

    @property
    def may_start(self) -> Permission:
        return may_start(self._request.user)

    @property
    def may_decide(self) -> Permission:
        return may_decide(self._request.user)


def frame(request: HttpRequest) -> dict[str, Any]:
    """Context processor."""
    return {"frame": Frame(request), "viewer": getattr(request, "user", None)}
