"""The simulated shop: deterministic, coupled, and honest. What is done to it decides what happens next."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.backends.estate import match_scenario, scenarios
from tools.estate import logs, metrics, shop
from tools.estate.catalogue import CATALOGUE
from tools.estate.deployments import deployments
from tools.estate.scenario import Condition
from tools.estate.scenarios import SCENARIOS
from tools.estate.timeline import Action, ActionKind
from tools.estate.world import KEPT_ESTATES, KEPT_STATES, Estate, _kept, estate
from tools.incident.statistics import shape
from tools.records import LogLine

ALERT_AT = 1_795_330_800.0  # 2026-11-22T07:00:00Z
LEAK, BROKEN, NOISY, QUIET = "pool-leak-deploy", "bad-deploy-5xx", "noisy-healthy", "quiet"
ALL = [LEAK, BROKEN, NOISY, QUIET]
ACTED = 60.0


def world(scenario: str, *actions: Action, seed: int = 7) -> Estate:
    return Estate(SCENARIOS[scenario], seed, ALERT_AT, actions)


def act(kind: ActionKind, service: str = "api", at: float = ACTED, **details: Any) -> Action:
    return Action(at, kind, service, tuple(sorted(details.items())))


def revert(version: str, at: float = ACTED, **details: Any) -> Action:
    return act("revert", at=at, version=version, code=True, **details)


def restart(mode: str = "terminate_idle_in_transaction", service: str = "api", at: float = ACTED) -> Action:
    return act("restart_pool", service, at, mode=mode, older_than_seconds=60, sessions=30)


def read(one: Estate, service: str, metric: str, minute: float) -> float:
    return metrics.value(one, service, metric, one.tick_of(60 * minute))


def holds(one: Estate, condition: Condition, minute: float) -> bool:
    """Whether the condition held for all of its minutes until then."""
    ticks = range(one.tick_of(60 * (minute - condition.minutes)), one.tick_of(60 * minute) + 1)
    values = [metrics.value(one, condition.service, condition.metric, tick) for tick in ticks]
    if condition.comparison == "below":
        return max(values) < condition.value
    return min(values) > condition.value


def recovered(one: Estate, minute: float) -> bool:
    return all(holds(one, condition, minute) for condition in one.scenario.truth.recovery)


def hour(one: Estate, service: str, start: float, end: float, level: str = "debug") -> list[LogLine]:
    ticks = range(one.tick_of(60 * start), one.tick_of(60 * end))
    return [line for tick in ticks for line in logs.lines(one, service, tick, level)]


@pytest.mark.parametrize("scenario", ALL)
def test_it_is_the_same_every_time_and_in_any_order(scenario: str) -> None:
    first, second = world(scenario, restart()), world(scenario, restart())
    ticks = [-4000, -230, -10, 0, 3, 40, 500, 2000]
    forwards = [metrics.value(first, "api", "db_pool_in_use", tick) for tick in ticks]
    backwards = [metrics.value(second, "api", "db_pool_in_use", tick) for tick in reversed(ticks)]
    assert forwards == backwards[::-1]
    for service in logs.WRITERS:
        for tick in (-300, -5, 7):
            assert logs.lines(first, service, tick) == logs.lines(second, service, tick)


def test_it_differs_by_seed_but_not_in_what_it_means() -> None:
    one, other = world(LEAK, seed=7), world(LEAK, seed=8)
    assert [s.arrivals for s in map(one.state, range(20))] != [
        s.arrivals for s in map(other.state, range(20))
    ]
    for seeded in (one, other):
        assert read(seeded, "api", "db_pool_in_use", 0) == 40


def test_the_past_does_not_change_when_something_is_done() -> None:
    before, after = world(LEAK), world(LEAK, restart(), revert("v2.13.2", at=120))
    for minute in (-300, -30, -1, 0.5):
        tick = before.tick_of(60 * minute)
        assert before.state(tick) == after.state(tick)
        for service in logs.WRITERS:
            assert logs.lines(before, service, tick) == logs.lines(after, service, tick)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ALL),
    st.lists(
        st.one_of(
            st.builds(restart, at=st.floats(0, 3000)),
            st.builds(revert, st.sampled_from(["v2.13.2", "v2.15.0", "v2.12.0"]), at=st.floats(0, 3000)),
            st.builds(lambda n, at: act("scale", at=at, replicas=n), st.integers(1, 12), st.floats(0, 3000)),
        ),
        max_size=4,
    ),
    st.integers(-400, 800),
)
def test_every_value_is_possible_whatever_is_done(scenario: str, done: list[Action], tick: int) -> None:
    one = world(scenario, *done)
    for service, catalogue in CATALOGUE.items():
        for name, definition in catalogue.items():
            value = metrics.value(one, service, name, tick)
            assert value == value
            assert value >= 0 or name in ("cert_expiry", "disk_bytes_free")
            if definition.unit == "ratio":
                assert value <= 1
    assert metrics.value(one, "api", "db_pool_in_use", tick) <= metrics.value(
        one, "api", "db_pool_size", tick
    )
    used = metrics.value(one, "postgres", "db_connections_used", tick)
    assert used <= shop.POSTGRES_LIMIT - shop.POSTGRES_RESERVED
    for service in logs.WRITERS:
        for line in logs.lines(one, service, tick):
            assert 0 <= line.at - ALERT_AT - 10 * tick < 15
            assert line.service == service


def test_every_metric_of_the_catalogue_can_be_read() -> None:
    assert {(s, m) for s in CATALOGUE for m in CATALOGUE[s]} == set(metrics.READINGS)


@pytest.mark.parametrize("scenario", ALL)
def test_it_was_healthy_for_two_weeks_before(scenario: str) -> None:
    one = world(scenario)
    for minute in range(-14 * 1440, -60, 777):
        assert read(one, "api", "error_rate", minute) < 0.01
        assert read(one, "api", "db_pool_waiting", minute) == 0
        assert read(one, "worker", "queue_depth", minute) < 60


def test_traffic_follows_the_day() -> None:
    one = world(QUIET)
    day = [read(one, "api", "request_rate", minute) for minute in range(-1440, 0, 60)]
    assert max(day) > 1.3 * min(day)


# A release leaks connections.


def test_a_leak_fills_the_pool_and_breaks_requests() -> None:
    one = world(LEAK)
    assert read(one, "api", "db_sessions_idle_in_tx", -40) <= 2
    rise = [read(one, "api", "db_sessions_idle_in_tx", minute) for minute in (-30, -20, -10)]
    assert rise[1] - rise[0] == pytest.approx(9, abs=3)
    assert rise[2] - rise[1] == pytest.approx(9, abs=3)
    assert read(one, "api", "db_pool_in_use", 0) == 40
    assert read(one, "api", "db_pool_waiting", 0) > 50
    assert read(one, "api", "error_rate", 0) > 0.3
    assert read(one, "postgres", "db_connections_used", 0) < 90  # the server itself is not full
    assert not recovered(one, 60)


def test_its_logs_name_the_service_the_version_and_the_statement() -> None:
    one = world(LEAK)
    errors = hour(one, "api", -10, 0, "error")
    assert len(errors) > 50
    assert {line.version for line in errors} == {"v2.14.0"}
    assert all("QueuePool limit of size 10 overflow 0 reached" in line.message for line in errors)
    assert not hour(one, "api", -60, -15, "error")
    first = hour(one, "api", -60, 0, "warning")
    stacked = [line for line in first if "stacked codes" in line.message]
    assert 60 * -38 < min(line.at for line in stacked) - ALERT_AT < 60 * -35
    snapshots = [line.message for line in hour(one, "postgres", -10, 0, "warning")]
    assert any("FROM coupons" in text and "application_name=api" in text for text in snapshots)


def test_restarting_the_pool_helps_for_twenty_minutes() -> None:
    one = world(LEAK, restart())
    assert read(one, "api", "db_pool_in_use", 2) < 18
    assert read(one, "api", "error_rate", 3) < 0.01
    assert read(one, "api", "db_pool_waiting", 15) == 0
    assert 30 <= read(one, "api", "db_pool_in_use", 21) < 40  # the alert would fire again
    assert not recovered(one, 45)
    ended = [line.message for line in hour(one, "postgres", 0, 2, "critical")]
    assert any("terminating connection due to administrator command" in text for text in ended)


def test_reverting_the_release_drains_the_pool_in_three_minutes() -> None:
    one = world(LEAK, revert("v2.13.2", deployment_id="dep_0412", from_version="v2.14.0"))
    assert read(one, "api", "db_sessions_idle_in_tx", 1.2) > 25
    assert read(one, "api", "db_sessions_idle_in_tx", 2.5) < 20
    assert read(one, "api", "db_sessions_idle_in_tx", 4.5) < 3
    for minute in (10, 60, 600):
        assert recovered(one, minute)
    started = [line for line in hour(one, "api", 0, 3) if "started, ready for traffic" in line.message]
    assert {line.version for line in started} == {"v2.13.2"}
    assert len(started) == 4


def test_scaling_up_moves_the_shortage_to_everybody_else() -> None:
    one = world(LEAK, act("scale", replicas=8))
    assert read(one, "postgres", "db_connections_used", 5) >= 95
    assert read(one, "worker", "error_rate", 5) > 0.1
    assert read(one, "worker", "queue_depth", 10) > 500
    assert not recovered(one, 5)
    assert not recovered(one, 60)
    refused = [line.message for line in hour(one, "postgres", 3, 5, "critical")]
    assert any("remaining connection slots are reserved" in text for text in refused)


def test_reverting_something_else_does_not_help() -> None:
    one = world(LEAK, act("revert", "worker", version="v3.4.0", code=True))
    assert read(one, "api", "error_rate", 10) > 0.5
    assert not recovered(one, 30)


@pytest.mark.parametrize("hour_of_day", [0, 6, 12, 18])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_its_evidence_is_clear_at_any_hour_and_seed(hour_of_day: int, seed: int) -> None:
    alert_at = ALERT_AT - 7 * 3600 + hour_of_day * 3600 + 137
    one = Estate(SCENARIOS[LEAK], seed, alert_at, ())
    (series,) = metrics.series(one, "api", "db_sessions_idle_in_tx", -360, 0, 1, "none")
    found = shape([(at, value) for at, value in series.samples if value is not None], 2.5)
    assert found.trend == "rising"
    assert found.changed_at == pytest.approx(alert_at - 38 * 60, abs=180)
    assert 0.3 < read(one, "api", "error_rate", 0) < 0.6
    cured = Estate(SCENARIOS[LEAK], seed, alert_at, (revert("v2.13.2"),))
    assert recovered(cured, 10)
    assert not recovered(Estate(SCENARIOS[LEAK], seed, alert_at, (restart(),)), 45)
    assert not recovered(Estate(SCENARIOS[LEAK], seed, alert_at, (act("scale", replicas=8),)), 10)


# A canary fails for guests.


def test_a_broken_canary_fails_on_its_own_instances_only() -> None:
    one = world(BROKEN)
    assert read(one, "api", "error_rate", -12) < 0.01
    assert read(one, "api", "error_rate", -5) == pytest.approx(0.34, abs=0.02)
    assert read(one, "api", "db_pool_in_use", 0) < 20
    by_version = metrics.series(one, "api", "error_rate", -10, 0, 1, "version")
    rates = {
        series.labels["version"]: [v for _, v in series.samples if v is not None] for series in by_version
    }
    assert min(rates["v2.15.1"]) > 0.6
    assert max(rates["v2.15.0"]) < 0.01
    errors = hour(one, "api", -10, 0, "error")
    assert {line.version for line in errors} == {"v2.15.1"}
    assert all("AttributeError" in line.message for line in errors)
    assert len({line.instance for line in errors}) == 2


def test_only_reverting_the_canary_helps() -> None:
    fixed = world(BROKEN, revert("v2.15.0", deployment_id="dep_0414", from_version="v2.15.1"))
    assert read(fixed, "api", "error_rate", 2.2) < 0.01
    assert recovered(fixed, 6)
    assert not recovered(world(BROKEN, restart("drain_and_recycle")), 10)
    assert not recovered(world(BROKEN, act("revert", "worker", version="v3.4.1", code=True)), 10)
    scaled = world(BROKEN, act("scale", replicas=8))
    assert read(scaled, "api", "error_rate", 5) > 0.45  # new instances run the broken version


# Nothing is wrong.


def test_a_busy_hour_is_a_habit() -> None:
    one = world(NOISY)
    now = read(one, "api", "db_pool_in_use", 0)
    assert now / 40 > 0.78
    for hours in (1, 5, 24, 48):
        assert read(one, "api", "db_pool_in_use", -60 * hours) == pytest.approx(now, abs=4)
    assert read(one, "api", "db_pool_in_use", -30) / 40 < 0.62
    assert read(one, "api", "db_pool_in_use", 15) / 40 < 0.62
    assert recovered(one, 0)
    assert not hour(one, "api", -120, 0, "error")


@pytest.mark.parametrize("scenario", [NOISY, QUIET])
def test_any_remedy_for_nothing_only_costs(scenario: str) -> None:
    for mode in ("drain_and_recycle", "terminate_all_of_service"):
        for service in ("api", "worker", "reports"):
            one = world(scenario, restart(mode, service))
            assert read(one, service, "error_rate", 1.2) > 0.05
            assert read(one, service, "error_rate", 3) < 0.01
    assert read(world(scenario, act("scale", replicas=8)), "worker", "error_rate", 5) < 0.5


def test_a_scenario_is_never_only_right_or_only_wrong_for_one_remedy() -> None:
    """A policy that always does the same must not pass everywhere."""
    always = {
        "restart": lambda name: world(name, restart()),
        "scale": lambda name: world(name, act("scale", replicas=8)),
        "nothing": lambda name: world(name),
    }
    for name, done in always.items():
        passed = {scenario for scenario in (LEAK, BROKEN) if recovered(done(scenario), 60)}
        assert passed == set(), name


# Deployments.


def test_the_history_is_unrelated_except_for_its_end() -> None:
    for scenario in ALL:
        known = deployments(world(scenario), ALERT_AT)
        assert 20 <= len(known) <= 24
        assert len({one.deployment_id for one in known}) == len(known)
        assert [one.started_at for one in known] == sorted((one.started_at for one in known), reverse=True)
        assert known[-1].started_at > ALERT_AT - 14 * 86400
        versions: dict[tuple[str, str], str] = {}
        for one in reversed(known):  # every rollout starts from what ran before it
            key = (one.service, one.kind)
            if one.kind == "code":
                assert one.previous_version == versions.get(key, shop.SERVICES[one.service].version)
            versions[key] = one.version


def test_what_was_done_becomes_part_of_the_history() -> None:
    done = revert("v2.13.2", deployment_id="dep_0412", from_version="v2.14.0")
    one = world(LEAK, done, act("scale", at=300.0, replicas=6, from_replicas=4))
    at_once = deployments(one, ALERT_AT + ACTED + 1)
    assert at_once[0].version == "v2.13.2"
    assert at_once[0].status == "in progress"
    later = {item.deployment_id: item for item in deployments(one, ALERT_AT + 900)}
    assert later["dep_0412"].status == "reverted"
    assert later["dep_0500"].status == "succeeded"
    assert later["dep_0501"].kind == "scale"
    assert deployments(one, ALERT_AT)[0].deployment_id == "dep_0412"


# Choosing and keeping worlds.


@pytest.mark.parametrize(
    ("question", "scenario"),
    [
        ("PostgreSQL connection pool exhausted", LEAK),
        ("alert: postgres connection pool is exhausted on production!", LEAK),
        ("Error rate of api is 34 % since ten minutes", BROKEN),
        ("checkout returns 500 errors", BROKEN),
        ("api connection pool usage above 80 % (warning)", NOISY),
        ("Who won the cup in 1974?", QUIET),
        ("", QUIET),
        ("api", QUIET),
    ],
)
def test_a_question_finds_its_scenario(question: str, scenario: str) -> None:
    assert match_scenario(question) == scenario


def test_every_alert_finds_its_own_scenario() -> None:
    for info in scenarios():
        assert match_scenario(info.alert) == info.id
        assert info.title


def test_every_scenario_carries_its_answer_key() -> None:
    for scenario in SCENARIOS.values():
        assert scenario.truth.required_evidence
        assert scenario.truth.right
        assert scenario.truth.wrong
        assert scenario.truth.recovery


def test_it_keeps_few_worlds_and_few_states() -> None:
    for number in range(2 * KEPT_ESTATES):
        one = estate(SCENARIOS[LEAK], number, ALERT_AT, ())
    assert estate(SCENARIOS[LEAK], number, ALERT_AT, ()) is one
    assert len(_kept) == KEPT_ESTATES
    for tick in range(-KEPT_STATES - 400, -300):
        one.state(tick)
    assert len(one._others) <= KEPT_STATES
    assert one.state(10**6) == one.state(10**6)  # four months later, without walking there
    assert len(one._states) < 2_000
