"""Who may do what without being asked: reads and tickets. Everything else waits for a person."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import policy
from tools.registry import TOOLS

DESTRUCTIVE = [name for name, tool in TOOLS.items() if tool.effect == "destructive"]
ARGUMENTS = st.dictionaries(
    st.sampled_from(["replicas", "mode", "reason", "service_name", "x"]),
    st.one_of(st.none(), st.integers(), st.text(max_size=20), st.booleans()),
)


@pytest.mark.parametrize("name", DESTRUCTIVE)
def test_it_asks_before_anything_destructive(name: str) -> None:
    verdict = policy.decide(TOOLS[name], {"replicas": 3}, "incident", "production")
    assert verdict.kind == "ask"
    assert verdict.quorum == 1
    assert verdict.rule
    assert verdict.reason.endswith(".")
    assert verdict.decide_within_seconds == 900
    assert verdict.execute_within_seconds == 600


@pytest.mark.parametrize("name", ["search_logs", "get_metrics", "list_recent_deployments"])
def test_it_lets_reads_run(name: str) -> None:
    assert policy.decide(TOOLS[name], {}, "incident", "production").kind == "allow"


@pytest.mark.parametrize("severity", ["sev1", "sev2", "sev3", "sev4"])
def test_it_lets_tickets_be_filed(severity: str) -> None:
    tool = TOOLS["create_incident_ticket"]
    assert policy.decide(tool, {"severity": severity}, "incident", "production").kind == "allow"


@pytest.mark.parametrize("replicas", [0, -1, 0.5, False])
def test_it_never_scales_to_zero(replicas: Any) -> None:
    verdict = policy.decide(TOOLS["scale_service"], {"replicas": replicas}, "incident", "production")
    assert verdict.kind == "deny"
    assert verdict.rule == "never-scale-to-zero"


def test_it_denies_changes_nobody_can_be_asked_about() -> None:
    revert = TOOLS["revert_deployment"]
    assert policy.decide(revert, {}, "", "production").kind == "deny"
    assert policy.decide(revert, {}, "incident", "moon").kind == "deny"


@settings(deadline=None)
@given(st.sampled_from(DESTRUCTIVE), ARGUMENTS, st.text(max_size=20), st.text(max_size=20))
def test_no_destructive_call_is_ever_allowed_unasked(
    name: str, arguments: dict[str, Any], agent: str, environment: str
) -> None:
    verdict = policy.decide(TOOLS[name], arguments, agent, environment)
    assert verdict.kind in ("ask", "deny")
    assert verdict.quorum >= 1


@settings(deadline=None)
@given(st.sampled_from(list(TOOLS)), ARGUMENTS, st.text(max_size=20), st.text(max_size=20))
def test_it_is_a_pure_function(name: str, arguments: dict[str, Any], agent: str, environment: str) -> None:
    first = policy.decide(TOOLS[name], arguments, agent, environment)
    assert first == policy.decide(TOOLS[name], dict(arguments), agent, environment)
