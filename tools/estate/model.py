"""The coupled model: one step of ten seconds for the whole shop.

Connections that are held follow Little's law; what leaks is never given back; when a pool is short,
requests wait, time out and are tried again; sessions of all services share one PostgreSQL. Only a few
quantities are remembered from step to step, the rest follows from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tools.estate import shop
from tools.estate.noise import uniforms, wobble
from tools.estate.scenario import Scenario
from tools.estate.timeline import Action, Timeline

EXPORT_EVERY = 3600.0
EXPORT_STARTS = -420.0  # seconds from the alert, then every hour
EXPORT_LASTS = 840.0
RESTART_BLIP_SECONDS = 30.0


@dataclass(slots=True, frozen=True)
class State:
    """The shop during one tick. The first block is remembered by the next tick."""

    leaked: float = 0.0  # api connections that nobody will give back
    leaking_since: float | None = None  # offset of the oldest of them
    draining: float = 0.0  # leaked connections whose instances are being replaced
    queue: float = 12.0
    queue_oldest: float = 3.0
    api_errors: float = shop.BASE_ERROR_RATE  # share of requests
    wal: float = 0.0

    offset: float = 0.0
    arrivals: float = shop.ARRIVALS_PER_SECOND
    api_replicas: int = 4
    api_pool: float = 40.0
    api_in_use: float = 12.0
    api_waiting: float = 0.0
    api_wait_p95: float = 0.003
    api_shortage: float = 0.0
    api_failing: float = 0.0
    api_blip: float = 0.0
    api_sessions: float = 32.0
    worker_replicas: int = 2
    worker_in_use: float = 3.0
    worker_sessions: float = 14.0
    reports_replicas: int = 1
    reports_in_use: float = 1.0
    reports_sessions: float = 4.0
    worker_blip: float = 0.0
    reports_blip: float = 0.0
    refused: float = 0.0  # share of worker and reports sessions that PostgreSQL turned away
    export: float = 0.0  # how busy the hourly export is, 0 to 1
    versions: tuple[tuple[str, int], ...] = ()


def step(
    scenario: Scenario, timeline: Timeline, seed: int, alert_at: float, tick: int, before: State
) -> State:
    """The state of `tick`, from the state before it. Pure."""
    offset = float(tick * shop.TICK_SECONDS)
    versions = tuple(timeline.versions("api", offset))
    replicas = sum(size for _, size in versions)
    pool = float(replicas * shop.SERVICES["api"].pool_per_replica)
    export = _export(offset)
    arrivals = _arrivals(scenario, seed, alert_at, tick, before)
    hold = scenario.api_hold_seconds * (1 + 0.02 * wobble(seed, "api.hold", tick))
    demand = arrivals * hold + scenario.export_connections * export
    leaked, draining, since = _leak(scenario, timeline, before, offset, versions, demand, pool)
    shortage = _shortage(demand, pool - leaked)
    failing = _failing(scenario, versions)
    blip = _blip(timeline, offset, "api")
    base = shop.BASE_ERROR_RATE * (1 + 0.25 * wobble(seed, "api.errors", tick))
    errors = 1 - (1 - shortage) * (1 - failing) * (1 - base) * (1 - blip)
    in_use = min(pool, demand + leaked)
    state = replace(
        before,
        leaked=leaked,
        leaking_since=since,
        draining=draining,
        api_errors=errors,
        offset=offset,
        arrivals=arrivals,
        api_replicas=replicas,
        api_pool=pool,
        api_in_use=in_use,
        api_waiting=_waiting(replicas, in_use, arrivals, shortage),
        api_wait_p95=_wait(in_use / pool if pool else 1.0, shortage),
        api_shortage=shortage,
        api_failing=failing,
        api_blip=blip,
        api_sessions=min(pool, in_use + shop.API_IDLE_PER_REPLICA * replicas),
        export=export,
        versions=versions,
    )
    return _background(timeline, seed, tick, state)


def calm() -> State:
    """Where everything starts: nothing leaked, short queues."""
    return State()


def _arrivals(scenario: Scenario, seed: int, alert_at: float, tick: int, before: State) -> float:
    here = 1 + scenario.swing * _daylight(alert_at + tick * shop.TICK_SECONDS)
    at_alert = 1 + scenario.swing * _daylight(alert_at)
    retries = 1 + 0.3 * max(0.0, before.api_errors - shop.BASE_ERROR_RATE)
    noise = 1 + 0.015 * wobble(seed, "api.arrivals", tick)
    return shop.ARRIVALS_PER_SECOND * here / at_alert * retries * noise


def _daylight(at: float) -> float:
    """-1 in the small hours, 1 in the evening, UTC."""
    return math.sin((at % 86400 / 86400 - 0.5) * 2 * math.pi)


def _export(offset: float) -> float:
    phase = (offset - EXPORT_STARTS) % EXPORT_EVERY
    if phase >= EXPORT_LASTS:
        return 0.0
    return min(1.0, phase / 60, (EXPORT_LASTS - phase) / 60)


def _leak(
    scenario: Scenario,
    timeline: Timeline,
    before: State,
    offset: float,
    versions: tuple[tuple[str, int], ...],
    demand: float,
    pool: float,
) -> tuple[float, float, float | None]:
    """(leaked connections, how many of them are being drained, since when there are any)."""
    leaked, draining, since = before.leaked, before.draining, before.leaking_since
    total = sum(size for _, size in versions) or 1
    free = max(0.0, pool - leaked)
    served = min(1.0, free / demand) if demand else 1.0
    for behaviour in scenario.behaviours:
        share = dict(versions).get(behaviour.version, 0) / total
        if behaviour.service == "api" and behaviour.leaks_per_minute and share:
            leaked += behaviour.leaks_per_minute * shop.TICK_SECONDS / 60 * share * served
            since = offset if since is None else since
    for action in _between(timeline.actions, before.offset, offset):
        if action.service != "api":
            continue
        if action.kind == "restart_pool" and leaked:
            young = min(
                1.0, float(action.detail("older_than_seconds", 60)) / max(60.0, offset - (since or offset))
            )
            leaked = 0.0 if action.detail("mode") != "terminate_idle_in_transaction" else leaked * young
            since = offset if leaked or since is not None else None
        if action.kind == "revert":
            draining = leaked
    if draining and leaked:
        leaked = max(0.0, leaked - draining * shop.TICK_SECONDS / (shop.ROLLOUT_SECONDS + shop.DRAIN_SECONDS))
        if leaked < 0.01:
            leaked, draining, since = 0.0, 0.0, None
    return min(leaked, pool), draining, since


def _between(actions: tuple[Action, ...], after: float, until: float) -> list[Action]:
    return [action for action in actions if after < action.at <= until]


def _shortage(demand: float, free: float) -> float:
    if demand <= 0:
        return 0.0
    return max(0.0, min(1.0, 1 - max(0.0, free) / demand))


def _failing(scenario: Scenario, versions: tuple[tuple[str, int], ...]) -> float:
    total = sum(size for _, size in versions) or 1
    return sum(
        behaviour.failing_share * dict(versions).get(behaviour.version, 0) / total
        for behaviour in scenario.behaviours
        if behaviour.service == "api"
    )


def _blip(timeline: Timeline, offset: float, service: str) -> float:
    """The share of requests that an action breaks for a moment: connections in use are cut off."""
    worst = 0.0
    for action in timeline.actions:
        if action.service != service or not 0 <= offset - action.at < RESTART_BLIP_SECONDS:
            continue
        mode = action.detail("mode")
        broken = {"terminate_all_of_service": 0.35, "drain_and_recycle": 0.08}.get(str(mode), 0.0)
        worst = max(worst, broken, 0.01 if action.kind == "revert" else 0.0)
    return worst


def _waiting(replicas: int, in_use: float, arrivals: float, shortage: float) -> float:
    threads = replicas * shop.API_THREADS_PER_REPLICA
    return min(max(0.0, threads - in_use), arrivals * shortage * shop.POOL_TIMEOUT_SECONDS)


def _wait(usage: float, shortage: float) -> float:
    if shortage > 0.005:
        return min(shop.POOL_TIMEOUT_SECONDS, 4 + 120 * shortage)
    return 0.003 + max(0.0, usage - 0.88) ** 2 * 60


def _background(timeline: Timeline, seed: int, tick: int, state: State) -> State:
    """Worker, reports and PostgreSQL: they get what api leaves of the sessions."""
    a, b, c, *_ = uniforms(seed, "background", tick)
    worker = timeline.replicas_ready("worker", state.offset)
    reports = timeline.replicas_ready("reports", state.offset)
    usable = shop.POSTGRES_LIMIT - shop.POSTGRES_RESERVED - shop.MONITORING_SESSIONS
    busy = state.arrivals / shop.ARRIVALS_PER_SECOND
    want_worker = min(10.0 * worker, shop.WORKER_SESSIONS * worker / 2 + 2 * a)
    want_reports = min(10.0 * reports, (shop.REPORTS_SESSIONS + 4 * state.export + b) * max(1, reports))
    left = max(0.0, usable - state.api_sessions)
    refused = max(0.0, 1 - left / (want_worker + want_reports))
    jobs = shop.WORKER_JOBS_PER_SECOND * busy * shop.TICK_SECONDS
    room = max(0.0, 1 - 2 * refused) * (8.0 * worker) * shop.TICK_SECONDS
    queue = max(4 + 14 * c, state.queue + jobs - room)
    return replace(
        state,
        worker_replicas=worker,
        worker_in_use=min(10.0 * worker, 3 * busy + a) * (1 - refused),
        worker_sessions=want_worker * (1 - refused),
        reports_replicas=reports,
        reports_in_use=(1 + 4 * state.export) * (1 - refused),
        reports_sessions=want_reports * (1 - refused),
        worker_blip=_blip(timeline, state.offset, "worker"),
        reports_blip=_blip(timeline, state.offset, "reports"),
        refused=refused,
        queue=queue,
        queue_oldest=1 + queue / max(1.0, room / shop.TICK_SECONDS) if queue > 30 else 1 + queue / 10,
        wal=0.4e6 * state.arrivals / 60,
    )
