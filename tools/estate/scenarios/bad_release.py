"""A canary release fails every checkout of visitors who are not signed in."""

from __future__ import annotations

from tools.estate.scenario import Behaviour, Condition, PastDeployment, Scenario, Truth
from tools.estate.scenarios.history import ORDINARY

MINUTES_BEFORE = 11.0

SCENARIO = Scenario(
    id="bad-deploy-5xx",
    title="Error rate jumps with a new release",
    alert="api error rate is 34 % (threshold 5 %) for 5 minutes",
    alert_words="api error errors rate 5xx 500 http failing failures checkout high elevated exception",
    starts_minutes_before=MINUTES_BEFORE,
    behaviours=(Behaviour("api", "v2.15.1", failing_share=0.68),),
    deployments=(
        *ORDINARY,
        PastDeployment(
            411,
            26.5 * 60,
            "api",
            "v2.15.0",
            "v2.13.2",
            "anders",
            (("0d8a6c3", "wishlist: share by link"), ("c47be12", "wishlist: limit to 200 items")),
            (("app/wishlist.py", 52, 4), ("tests/test_wishlist.py", 47, 0)),
        ),
        PastDeployment(
            413,
            26.0,
            "worker",
            "v3.4.2",
            "v3.4.1",
            "jonas",
            (("5ef0b91", "mail: plain-text part for order confirmation"),),
            (("worker/mail.py", 11, 1),),
        ),
        PastDeployment(
            414,
            MINUTES_BEFORE,
            "api",
            "v2.15.1",
            "v2.15.0",
            "priya",
            (("f8d3e07", "checkout: prefill phone from profile"), ("19b2c64", "checkout: tidy summary step")),
            (("app/checkout.py", 27, 14), ("app/templates/summary.html", 8, 8)),
            instances=2,
        ),
    ),
    truth=Truth(
        component="api",
        kind="bad_code",
        trigger="dep_0414",
        chain=(
            "api v2.15.1 reads the profile of a visitor who has none",
            "every guest checkout on its two instances ends in a 500",
        ),
        required_evidence=(
            "search_logs AttributeError of api",
            "get_metrics api error_rate",
            "list_recent_deployments api",
        ),
        right=("revert_deployment dep_0414",),
        wrong=("restart_connection_pool api", "scale_service api", "revert_deployment dep_0413"),
        recovery=(Condition("api", "error_rate", "below", 0.02),),
    ),
)
