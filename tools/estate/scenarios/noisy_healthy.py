"""A warning that means nothing: the pool is busy every hour while the export runs."""

from __future__ import annotations

from tools.estate.scenario import Condition, Scenario, Truth
from tools.estate.scenarios.history import ORDINARY

SCENARIO = Scenario(
    id="noisy-healthy",
    title="Pool usage warning on a healthy system",
    alert="api connection pool usage above 80 % (warning)",
    alert_words="api connection pool usage above 80 warning percent busy utilisation utilization high",
    swing=0.04,
    api_hold_seconds=0.18,
    export_connections=11.0,
    deployments=ORDINARY,
    truth=Truth(
        component="none",
        kind="none",
        trigger="",
        chain=("the hourly export of reports keeps up to 11 api connections busy for 14 minutes",),
        required_evidence=(
            "get_metrics api db_pool_in_use with compare_to, or over several hours",
            "get_metrics api error_rate or db_pool_waiting",
        ),
        right=("no action", "create_incident_ticket sev4"),
        wrong=("restart_connection_pool", "scale_service", "revert_deployment"),
        recovery=(
            Condition("api", "error_rate", "below", 0.02),
            Condition("api", "db_pool_waiting", "below", 1),
        ),
    ),
)
