"""Nothing is wrong. For questions that no alert matches."""

from __future__ import annotations

from tools.estate.scenario import Condition, Scenario, Truth
from tools.estate.scenarios.history import ORDINARY

SCENARIO = Scenario(
    id="quiet",
    title="A quiet day",
    alert="Is everything all right?",
    alert_words="",
    deployments=ORDINARY,
    truth=Truth(
        component="none",
        kind="none",
        trigger="",
        chain=(),
        required_evidence=("get_metrics error_rate of the service in question",),
        right=("no action",),
        wrong=("restart_connection_pool", "scale_service", "revert_deployment"),
        recovery=(Condition("api", "error_rate", "below", 0.02),),
    ),
)
