"""The metrics of the shop: which service has which, in what unit, and where its limits are."""

from __future__ import annotations

from tools.records import MetricDefinition as Metric


def _named(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


_TRAFFIC = _named(
    Metric("request_rate", "req/s", "requests per second", 2, additive=True),
    Metric("error_rate", "ratio", "share of requests that fail", 4, warn=0.02, crit=0.05),
    Metric("latency_p50", "s", "median response time", 3, warn=0.3, crit=1.0),
    Metric("latency_p95", "s", "95th percentile of response time", 3, warn=1.0, crit=2.5),
    Metric("latency_p99", "s", "99th percentile of response time", 3, warn=2.0, crit=5.0),
)
_PROCESS = _named(
    Metric("cpu_usage", "ratio", "CPU in use, share of the limit", 3, warn=0.8, crit=0.95),
    Metric("memory_used", "bytes", "resident memory", 0, additive=True),
    Metric("memory_limit", "bytes", "memory limit", 0, additive=True),
    Metric("restarts_total", "count", "restarts since the instance was created", 0, additive=True),
    Metric("replicas_desired", "count", "instances that were asked for", 0),
    Metric("replicas_ready", "count", "instances that serve", 0),
)
_POOL = _named(
    Metric("db_pool_size", "connections", "size of the connection pools", 0, additive=True),
    Metric(
        "db_pool_in_use",
        "connections",
        "connections checked out of the pools",
        0,
        0.85,
        0.98,
        additive=True,
        limits_of="db_pool_size",
    ),
    Metric("db_pool_waiting", "requests", "requests waiting for a connection", 0, 1, 20, additive=True),
    Metric("db_pool_wait_p95", "s", "95th percentile of the wait for a connection", 3, warn=0.5, crit=5.0),
    Metric("db_connections_used", "connections", "server sessions opened by the service", 0, additive=True),
    Metric(
        "db_sessions_idle_in_tx",
        "sessions",
        "sessions that hold a transaction open and do nothing",
        0,
        5,
        15,
        additive=True,
    ),
    Metric("db_longest_transaction", "s", "age of the oldest open transaction", 0, 60, 300),
)
_QUEUE = _named(
    Metric("queue_depth", "jobs", "jobs that wait", 0, 200, 1000),
    Metric("queue_oldest", "s", "age of the oldest waiting job", 0, 60, 300),
)
_UPSTREAM = _named(
    Metric("upstream_error_rate", "ratio", "failed calls to the next service", 4, warn=0.02, crit=0.1),
    Metric(
        "upstream_latency_p95", "s", "95th percentile of calls to the next service", 3, warn=1.0, crit=5.0
    ),
)
_SERVER = _named(
    Metric("db_connections_used", "connections", "sessions on the server, all clients", 0, 78, 92),
    Metric("db_connections_max", "connections", "max_connections of the server", 0),
    Metric("db_sessions_idle_in_tx", "sessions", "sessions idle in transaction, all clients", 0, 8, 20),
    Metric("db_longest_transaction", "s", "age of the oldest open transaction", 0, 60, 300),
    Metric("db_lock_waiters", "sessions", "sessions that wait for a lock", 0, 5, 20),
    Metric("db_deadlocks", "1/s", "deadlocks per second", 4, 0.01, 0.1),
    Metric("disk_used_ratio", "ratio", "used share of the data volume", 4, warn=0.8, crit=0.92),
    Metric("disk_bytes_free", "bytes", "free space of the data volume", 0, 20e9, 8e9, direction="below"),
    Metric("wal_bytes", "bytes", "write-ahead log written per second", 0, additive=True),
    Metric("replication_lag", "s", "how far the replica is behind", 3, warn=5.0, crit=30.0),
)
_CERTIFICATE = _named(
    Metric(
        "cert_expiry",
        "s",
        "time left on the TLS certificate",
        0,
        14 * 86400.0,
        3 * 86400.0,
        direction="below",
    ),
)

CATALOGUE: dict[str, dict[str, Metric]] = {
    "shop-edge": _TRAFFIC | _UPSTREAM | _PROCESS | _CERTIFICATE,
    "api": _TRAFFIC | _POOL | _UPSTREAM | _PROCESS,
    "worker": _TRAFFIC | _POOL | _QUEUE | _PROCESS,
    "reports": _TRAFFIC | _POOL | _PROCESS,
    "postgres": _SERVER | _PROCESS,
    "redis": _QUEUE | _PROCESS,
    "payments-gateway": _named(
        Metric("error_rate", "ratio", "share of our calls that fail", 4, warn=0.02, crit=0.1),
        Metric("latency_p95", "s", "95th percentile of our calls", 3, warn=1.0, crit=5.0),
    ),
}
