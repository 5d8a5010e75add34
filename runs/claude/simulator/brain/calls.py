"""The calls the investigator makes, in the words of the tools."""

from __future__ import annotations

from typing import Any

from runs.claude.simulator.answer import Call


def failures_everywhere() -> Call:
    """Error lines of all services of the last hour, grouped."""
    return _search({"start": "now-1h"}, min_level="error")


def warnings_of(service: str) -> Call:
    """Warnings and errors of one service, far enough back to see them begin."""
    return _search({"start": "now-2h"}, min_level="warning", service=service)


def recent_changes() -> Call:
    """What was rolled out in the last day."""
    return Call("list_recent_deployments", {"since": "now-24h", "limit": 10})


def changes_after_action() -> Call:
    """What was rolled out in the last hour: shows whether an action took place."""
    return Call("list_recent_deployments", {"since": "now-1h", "limit": 10})


def metric(service: str, name: str, start: str = "now-2h", **more: Any) -> Call:
    """One metric of one service."""
    return Call(
        "get_metrics", {"service_name": service, "metric": name, "time_range": {"start": start}, **more}
    )


def metric_against_yesterday(service: str, name: str) -> Call:
    """One metric, compared with the same time yesterday."""
    return metric(service, name, compare_to="one_day_ago")


def _search(time_range: dict[str, str], **more: Any) -> Call:
    return Call("search_logs", {"query": "", "time_range": time_range, "view": "patterns", **more})
