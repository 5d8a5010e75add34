"""Every metric of the shop as a function of the state of one tick."""

from __future__ import annotations

from collections.abc import Callable

from tools.estate import shop
from tools.estate.catalogue import CATALOGUE
from tools.estate.model import State
from tools.estate.noise import uniforms, wobble
from tools.estate.timeline import Instance
from tools.estate.world import Estate
from tools.records import GroupBy, MetricDefinition, Series

# (estate, state, noise with mean 0 and deviation 1) -> value
Reading = Callable[[Estate, State, float], float]
MISSED_SCRAPE = 1 / 400


def _rate(service: str) -> Reading:
    per_second = {"shop-edge": 1.18, "api": 1.0, "worker": 0.05, "reports": 0.004}[service]
    return lambda estate, state, noise: state.arrivals * per_second * (1 + 0.01 * noise)


def _errors(service: str) -> Reading:
    def read(estate: Estate, state: State, noise: float) -> float:
        base = shop.BASE_ERROR_RATE * max(0.2, 1 + 0.2 * noise)
        if service == "shop-edge":
            return min(1.0, state.api_errors / 1.02 + 0.0005)
        if service == "api":
            return state.api_errors
        if service == "payments-gateway":
            return base * 0.8
        blip = state.worker_blip if service == "worker" else state.reports_blip
        return 1 - (1 - state.refused) * (1 - base) * (1 - blip)

    return read


def _latency(service: str, healthy: float, share_of_wait: float) -> Reading:
    def read(estate: Estate, state: State, noise: float) -> float:
        value = healthy * (1 + 0.06 * noise)
        if service in ("api", "shop-edge"):
            value += min(shop.POOL_TIMEOUT_SECONDS, state.api_wait_p95 * share_of_wait) * (1 + 0.02 * noise)
        elif service in ("worker", "reports"):
            value += 30 * state.refused * share_of_wait
        return value

    return read


def _cpu(service: str) -> Reading:
    normal = shop.SERVICES[service].cpu

    def read(estate: Estate, state: State, noise: float) -> float:
        load = state.arrivals / shop.ARRIVALS_PER_SECOND
        if service == "api":
            load *= (1 - 0.5 * state.api_shortage) * 4 / max(1, state.api_replicas)
        if service == "reports":
            load += 4 * state.export
        if service == "postgres":
            load += 0.3 * state.export + 0.003 * state.leaked - 0.4 * state.api_shortage
        return max(0.01, min(1.0, normal * (0.4 + 0.6 * load) * (1 + 0.05 * noise)))

    return read


def _memory(service: str) -> Reading:
    normal = shop.SERVICES[service].memory

    def read(estate: Estate, state: State, noise: float) -> float:
        size = estate.timeline.replicas_ready(service, state.offset)
        return normal * size * (1 + 0.012 * noise + 0.0004 * state.api_waiting * (service == "api"))

    return read


def _size(service: str, what: str) -> Reading:
    if what == "desired":
        return lambda estate, state, noise: estate.timeline.replicas_wanted(service, state.offset)
    return lambda estate, state, noise: estate.timeline.replicas_ready(service, state.offset)


def _limit(service: str) -> Reading:
    limit = shop.SERVICES[service].memory_limit
    return lambda estate, state, noise: limit * estate.timeline.replicas_ready(service, state.offset)


def _restarts(service: str) -> Reading:
    return lambda estate, state, noise: 0.0


def _idle_in_tx(state: State, noise: float) -> float:
    return state.leaked + max(0.0, 0.6 * noise)


def _longest(state: State, noise: float) -> float:
    if state.leaking_since is None or state.leaked < 0.5:
        return 2.5 + abs(noise) * 1.5
    return max(3.0, state.offset - state.leaking_since)


def _sessions(state: State, noise: float) -> float:
    total = state.api_sessions + state.worker_sessions + state.reports_sessions + shop.MONITORING_SESSIONS
    return min(shop.POSTGRES_LIMIT - shop.POSTGRES_RESERVED, total + 0.4 * noise)


_TIMES = {
    "shop-edge": (0.05, 0.19, 0.42),
    "api": (0.045, 0.18, 0.39),
    "worker": (0.2, 0.62, 1.1),
    "reports": (0.4, 1.4, 2.1),
}
_POOLS: dict[str, dict[str, Reading]] = {
    "api": {
        "db_pool_size": lambda e, s, n: s.api_pool,
        "db_pool_in_use": lambda e, s, n: s.api_in_use,
        "db_pool_waiting": lambda e, s, n: s.api_waiting,
        "db_pool_wait_p95": lambda e, s, n: s.api_wait_p95 * (1 + 0.03 * n),
        "db_connections_used": lambda e, s, n: s.api_sessions,
        "db_sessions_idle_in_tx": lambda e, s, n: _idle_in_tx(s, n),
        "db_longest_transaction": lambda e, s, n: _longest(s, n),
    },
    "worker": {
        "db_pool_size": lambda e, s, n: 10.0 * s.worker_replicas,
        "db_pool_in_use": lambda e, s, n: s.worker_in_use,
        "db_pool_waiting": lambda e, s, n: 12 * s.refused,
        "db_pool_wait_p95": lambda e, s, n: 0.002 + 30 * min(1.0, 2 * s.refused),
        "db_connections_used": lambda e, s, n: s.worker_sessions,
        "db_sessions_idle_in_tx": lambda e, s, n: max(0.0, 0.4 * n),
        "db_longest_transaction": lambda e, s, n: 1.5 + abs(n),
    },
    "reports": {
        "db_pool_size": lambda e, s, n: 10.0 * s.reports_replicas,
        "db_pool_in_use": lambda e, s, n: s.reports_in_use,
        "db_pool_waiting": lambda e, s, n: 4 * s.refused,
        "db_pool_wait_p95": lambda e, s, n: 0.002 + 30 * min(1.0, 2 * s.refused),
        "db_connections_used": lambda e, s, n: s.reports_sessions,
        "db_sessions_idle_in_tx": lambda e, s, n: max(0.0, 0.4 * n),
        "db_longest_transaction": lambda e, s, n: 2 + 20 * s.export + abs(n),
    },
}
_DISK_BYTES = 100e9
_POSTGRES: dict[str, Reading] = {
    "db_connections_used": lambda e, s, n: _sessions(s, n),
    "db_connections_max": lambda e, s, n: float(shop.POSTGRES_LIMIT),
    "db_sessions_idle_in_tx": lambda e, s, n: _idle_in_tx(s, n),
    "db_longest_transaction": lambda e, s, n: _longest(s, n),
    "db_lock_waiters": lambda e, s, n: max(0.0, 0.5 * n - 0.4),
    "db_deadlocks": lambda e, s, n: 0.0,
    "disk_used_ratio": lambda e, s, n: 0.612 + s.offset * 2e-8,
    "disk_bytes_free": lambda e, s, n: _DISK_BYTES * (0.388 - s.offset * 2e-8),
    "wal_bytes": lambda e, s, n: s.wal * (1 + 0.02 * n),
    "replication_lag": lambda e, s, n: 0.12 + 0.05 * abs(n),
}
_QUEUE: dict[str, Reading] = {
    "queue_depth": lambda e, s, n: s.queue,
    "queue_oldest": lambda e, s, n: s.queue_oldest,
}


def _readings() -> dict[tuple[str, str], Reading]:
    table: dict[tuple[str, str], Reading] = {}
    for service, (p50, p95, p99) in _TIMES.items():
        table[service, "request_rate"] = _rate(service)
        table[service, "latency_p50"] = _latency(service, p50, 0.45)
        table[service, "latency_p95"] = _latency(service, p95, 1.0)
        table[service, "latency_p99"] = _latency(service, p99, 1.05)
    for service in shop.SERVICES:
        if "error_rate" in CATALOGUE[service]:
            table[service, "error_rate"] = _errors(service)
        if "cpu_usage" in CATALOGUE[service]:
            table[service, "cpu_usage"] = _cpu(service)
            table[service, "memory_used"] = _memory(service)
            table[service, "memory_limit"] = _limit(service)
            table[service, "restarts_total"] = _restarts(service)
            table[service, "replicas_desired"] = _size(service, "desired")
            table[service, "replicas_ready"] = _size(service, "ready")
    for service, pool in _POOLS.items():
        table.update({(service, name): reading for name, reading in pool.items()})
    table.update({("postgres", name): reading for name, reading in _POSTGRES.items()})
    for service in ("worker", "redis"):
        table.update({(service, name): reading for name, reading in _QUEUE.items()})
    table["api", "upstream_error_rate"] = _errors("payments-gateway")
    table["api", "upstream_latency_p95"] = _latency("payments-gateway", 0.31, 0)
    table["payments-gateway", "latency_p95"] = _latency("payments-gateway", 0.31, 0)
    table["shop-edge", "upstream_error_rate"] = _errors("api")
    table["shop-edge", "upstream_latency_p95"] = _latency("api", 0.18, 1.0)
    table["shop-edge", "cert_expiry"] = lambda e, s, n: 61 * 86400 - s.offset
    return table


READINGS = _readings()


def value(estate: Estate, service: str, metric: str, tick: int) -> float:
    """The value of one metric during one tick. Raises KeyError for a metric the service does not have."""
    noise = wobble(estate.seed, f"{service}.{metric}", tick)
    return _rounded(CATALOGUE[service][metric], READINGS[service, metric](estate, estate.state(tick), noise))


def series(
    estate: Estate, service: str, metric: str, first: int, last: int, stride: int, group_by: GroupBy
) -> list[Series]:
    """Samples of every `stride`th tick from first to last; one series per group, labelled with it."""
    definition = CATALOGUE[service][metric]
    found: dict[str, list[tuple[float, float | None]]] = {}
    ticks = range(first, last + 1, max(1, stride))
    for position, tick in enumerate(ticks):
        at = estate.alert_at + tick * shop.TICK_SECONDS
        whole = value(estate, service, metric, tick)
        missed = uniforms(estate.seed, f"scrape.{service}", tick)[0] < MISSED_SCRAPE
        groups = (
            {"": whole} if group_by == "none" else _groups(estate, definition, service, tick, whole, group_by)
        )
        for label, part in groups.items():
            samples = found.setdefault(
                label, [(estate.alert_at + t * shop.TICK_SECONDS, None) for t in ticks[:position]]
            )
            samples.append((at, None if missed else part))
        for label, samples in found.items():
            if label not in groups:
                samples.append((at, None))
    return [
        Series({"service": service} | ({group_by: label} if label else {}), samples)
        for label, samples in sorted(found.items())
    ]


def _groups(
    estate: Estate, definition: MetricDefinition, service: str, tick: int, whole: float, group_by: GroupBy
) -> dict[str, float]:
    offset = float(tick * shop.TICK_SECONDS)
    instances = estate.timeline.instances(service, offset)
    members: dict[str, list[Instance]] = {}
    for instance in instances:
        label = {"instance": instance.name, "version": instance.version, "zone": instance.zone}[group_by]
        members.setdefault(label, []).append(instance)
    if definition.name == "error_rate" and service == "api":
        return {label: _api_errors(estate, tick, group) for label, group in members.items()}
    if not definition.additive:
        return dict.fromkeys(members, whole)
    weights = {
        instance.name: 1 + 0.06 * wobble(estate.seed, f"share.{definition.name}.{instance.name}", tick)
        for instance in instances
    }
    total = sum(weights.values()) or 1.0
    return {
        label: _rounded(definition, whole * sum(weights[one.name] for one in group) / total)
        for label, group in members.items()
    }


def _api_errors(estate: Estate, tick: int, group: list[Instance]) -> float:
    """Errors of some instances: what a version does wrong shows on its own instances only."""
    state = estate.state(tick)
    failing = 0.0
    for behaviour in estate.scenario.behaviours:
        share = sum(one.version == behaviour.version for one in group) / len(group)
        failing += behaviour.failing_share * share
    rest = (1 - state.api_errors) / max(1e-9, 1 - state.api_failing)
    noise = 1 + 0.1 * wobble(estate.seed, f"errors.{group[0].name}", tick)
    return round(min(1.0, max(0.0, (1 - rest) * noise + failing * rest)), 4)


def _rounded(definition: MetricDefinition, value: float) -> float:
    return round(value, definition.decimals) if definition.decimals else float(round(value))
