"""Every tool there is, one literal list."""

from __future__ import annotations

from tools.base import Tool
from tools.incident.deployments import list_recent_deployments
from tools.incident.logs import search_logs
from tools.incident.metrics import get_metrics
from tools.incident.pool import restart_connection_pool
from tools.incident.reverting import revert_deployment
from tools.incident.scaling import scale_service
from tools.incident.tickets import create_incident_ticket

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        search_logs,
        get_metrics,
        list_recent_deployments,
        create_incident_ticket,
        restart_connection_pool,
        scale_service,
        revert_deployment,
    )
}


def find(name: str) -> Tool | None:
    """The tool of this name."""
    return TOOLS.get(name)
