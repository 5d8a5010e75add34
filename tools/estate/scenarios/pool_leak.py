"""A release leaks database connections on an error path until the pool is empty."""

from __future__ import annotations

from tools.estate.scenario import Behaviour, Condition, PastDeployment, Scenario, Truth
from tools.estate.scenarios.history import ORDINARY

MINUTES_BEFORE = 38.0

SCENARIO = Scenario(
    id="pool-leak-deploy",
    title="Connection pool exhausted after a deployment",
    alert="PostgreSQL connection pool exhausted",
    alert_words="postgresql postgres database connection connections pool exhausted exhaustion checkout",
    starts_minutes_before=MINUTES_BEFORE,
    behaviours=(Behaviour("api", "v2.14.0", leaks_per_minute=0.9),),
    deployments=(
        *ORDINARY,
        PastDeployment(
            412,
            MINUTES_BEFORE,
            "api",
            "v2.14.0",
            "v2.13.2",
            "mei",
            (
                ("7c2e91b", "coupons: reject stacked codes"),
                ("e01f4aa", "coupons: read rules in one query"),
                ("b95d310", "checkout: copy change"),
            ),
            (
                ("app/coupons.py", 58, 21),
                ("app/checkout.py", 3, 3),
                ("tests/test_coupons.py", 40, 4),
            ),
        ),
    ),
    truth=Truth(
        component="api",
        kind="connection_leak",
        trigger="dep_0412",
        chain=(
            "api v2.14.0 leaves its session open when it rejects stacked coupon codes",
            "sessions idle in transaction rise by about one a minute",
            "the pool of 40 is full, requests wait 30 s and fail",
        ),
        required_evidence=(
            "get_metrics api db_sessions_idle_in_tx or db_pool_in_use",
            "search_logs QueuePool timeouts of api",
            "list_recent_deployments api",
        ),
        right=("revert_deployment dep_0412", "restart_connection_pool api, then revert_deployment dep_0412"),
        wrong=("scale_service api", "revert_deployment of anything else", "restart_connection_pool alone"),
        recovery=(
            Condition("api", "db_sessions_idle_in_tx", "below", 5),
            Condition("api", "error_rate", "below", 0.02),
            Condition("worker", "error_rate", "below", 0.02),
        ),
    ),
)
