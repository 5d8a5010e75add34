"""A run's view of the tools, for tests: open a world, call tools as the engine does, read the envelopes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tools import boundary
from tools.backends import estate
from tools.base import Tool, ToolContext
from tools.registry import TOOLS

ALERT_AT = datetime(2026, 11, 22, 7, 0, tzinfo=UTC)
KEYS = [
    "status",
    "evidence_id",
    "source",
    "asked",
    "summary",
    "data",
    "truncation",
    "warnings",
    "hints",
    "error",
]


def expected(
    metric: str, comparison: str, value: float, *, service: str = "api", within: int = 300
) -> dict[str, Any]:
    """An expected_effect."""
    return {
        "service_name": service,
        "metric": metric,
        "comparison": comparison,
        "value": value,
        "within_seconds": within,
    }


class Desk:
    """One run with a world of its own. Every call gets the next idempotency key unless told otherwise."""

    def __init__(self, scenario: str, key: str = "run-1") -> None:
        self.key = key
        self._calls = 0
        estate.open_world(key, scenario, now=ALERT_AT)

    def context(self, key: str = "") -> ToolContext:
        """The context of the next call."""
        self._calls += 1
        return ToolContext(
            environment="production",
            world=self.key,
            idempotency_key=key or f"{self.key}/{self._calls}",
            evidence_id=f"ev_{self._calls:02d}",
        )

    def call(self, name: str, *, idempotency_key: str = "", **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its envelope, which must be complete and within its limit."""
        tool = TOOLS[name]
        outcome = boundary.call(tool, arguments, self.context(idempotency_key))
        envelope: dict[str, Any] = json.loads(outcome.text)
        assert list(envelope) == KEYS
        assert len(outcome.text) <= tool.output_limit
        assert outcome.is_error == (envelope["status"] == "error")
        assert outcome.error_kind == (envelope["error"] or {}).get("kind", "")
        return envelope

    def preview(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The approval card."""
        return boundary.preview(TOOLS[name], arguments, self.context())

    def metric(self, service: str, metric: str, **more: Any) -> dict[str, Any]:
        """The only series of a metric."""
        envelope = self.call("get_metrics", service_name=service, metric=metric, **more)
        (series,) = envelope["data"]["series"]
        return dict(series)


def call(tool: Tool, **arguments: Any) -> dict[str, Any]:
    """Call a tool that needs no world."""
    context = ToolContext("production", "nowhere", "key", "ev_01")
    outcome = boundary.call(tool, arguments, context)
    envelope: dict[str, Any] = json.loads(outcome.text)
    assert list(envelope) == KEYS
    return envelope
