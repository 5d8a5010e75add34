"""What somebody on call knows before looking: symptoms, what causes them, and which numbers tell.

General operations knowledge only. Nothing here knows a particular system or incident.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Symptom:
    """A family of problems. `metrics`: what to read on an affected service, most telling first."""

    name: str
    words: frozenset[str]
    reasons: str
    metrics: tuple[str, ...]
    store_metrics: tuple[str, ...] = ()  # read on the data store itself
    control: str = "request_rate"  # compared with yesterday, to tell load from fault
    holds: str = ""  # the metric that says who holds a shared resource


SYMPTOMS = (
    Symptom(
        "certificate",
        frozenset({"certificate", "cert", "tls", "ssl", "handshake", "x509"}),
        "a certificate that ran out, a renewal that failed unnoticed, or a chain that changed",
        ("cert_expiry", "error_rate", "request_rate"),
    ),
    Symptom(
        "disk",
        frozenset({"disk", "volume", "space", "wal", "inode"}),
        "data that grows as planned, logs or write-ahead files that nobody removes, or a stuck replica",
        ("disk_used_ratio", "wal_bytes", "disk_bytes_free", "replication_lag"),
        ("disk_used_ratio", "wal_bytes"),
    ),
    Symptom(
        "locks",
        frozenset({"lock", "locks", "locked", "deadlock", "deadlocks", "blocked"}),
        "a transaction that stays open, a schema change in the queue, or two jobs that collide",
        ("db_lock_waiters", "db_longest_transaction", "latency_p95"),
        ("db_lock_waiters", "db_longest_transaction"),
        holds="db_sessions_idle_in_tx",
    ),
    Symptom(
        "connection pool",
        frozenset(
            {"pool", "pools", "connection", "connections", "slots", "queuepool", "sessions", "clients"}
        ),
        "more traffic than the pool was sized for, connections that are taken and not given back, "
        "or a pool setting that was changed",
        ("db_pool_in_use", "db_sessions_idle_in_tx", "error_rate", "db_pool_waiting", "latency_p95"),
        ("db_connections_used", "db_sessions_idle_in_tx"),
        holds="db_sessions_idle_in_tx",
    ),
    Symptom(
        "memory",
        frozenset({"memory", "oom", "oomkilled", "restarts", "restarting", "crashloop", "heap"}),
        "a leak that came with a release, a cache without a limit, or a limit that was lowered",
        ("memory_used", "restarts_total", "error_rate"),
    ),
    Symptom(
        "queue",
        frozenset({"queue", "backlog", "jobs", "lag", "consumer", "consumers", "stuck"}),
        "more work than workers, workers that are stuck, or jobs that fail and come back",
        ("queue_depth", "queue_oldest", "error_rate", "cpu_usage"),
    ),
    Symptom(
        "dependency",
        frozenset({"upstream", "gateway", "dependency", "provider", "thirdparty", "504", "502"}),
        "a dependency that is slow or failing, a network path, or our own requests to it",
        ("upstream_latency_p95", "upstream_error_rate", "error_rate", "latency_p95"),
    ),
    Symptom(
        "error rate",
        frozenset({"error", "errors", "error_rate", "5xx", "500", "exception", "exceptions", "failing",
                   "failures", "failed", "fails"}),
        "a release that broke a path, a dependency that fails, or a resource that ran out",
        ("error_rate", "latency_p95", "request_rate", "db_pool_waiting"),
    ),
    Symptom(
        "latency",
        frozenset({"latency", "slow", "slowness", "p95", "p99", "timeout", "timeouts", "latency_p95"}),
        "more traffic, a slower dependency, a shortage of connections, or a release that does more work",
        ("latency_p95", "request_rate", "cpu_usage", "db_pool_waiting", "error_rate"),
    ),
    Symptom(
        "load",
        frozenset({"cpu", "load", "traffic", "saturation", "surge", "overload", "overloaded"}),
        "more traffic, a job at a bad time, or a release that costs more per request",
        ("cpu_usage", "request_rate", "latency_p95", "error_rate"),
    ),
)  # fmt: skip

GENERAL = Symptom(
    "trouble",
    frozenset(
        {"wrong", "broken", "down", "outage", "incident", "alert", "problem", "issue", "healthy", "health",
         "status", "investigate", "degraded", "unavailable", "happening", "check", "everything", "okay"}
    ),
    "something that changed, something that ran out, or something we depend on",
    ("error_rate", "latency_p95", "request_rate"),
)  # fmt: skip

# Names that services commonly have, and what people call a database in an alert.
_COMMON_SERVICES = (
    "api", "web", "worker", "frontend", "backend", "checkout", "payments", "orders", "gateway", "auth",
    "search", "reports", "billing", "edge", "redis", "mysql", "kafka", "rabbitmq", "nginx",
)  # fmt: skip
_STORES = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "pg": "postgres",
    "database": "postgres",
    "db": "postgres",
}
_EXPLICIT = re.compile(r"\b(?:service|app|job|deployment|target)\s*[=:]\s*[\"']?([a-z][a-z0-9-]{1,40})")
_WORD = re.compile(r"[a-z0-9_]+(?:-[a-z0-9_]+)*")
WARNING_WORDS = frozenset(
    {"warning", "warn", "approaching", "nearly", "above", "threshold", "usage", "noisy"}
)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in order; hyphenated names stay whole."""
    return _WORD.findall(text.lower())


def symptom_of(text: str) -> Symptom | None:
    """The family of problems that most words of a text speak of; None when no word does."""
    words = words_of(text)
    scored = [(sum(word in symptom.words for word in words), symptom) for symptom in SYMPTOMS]
    best, found = max(scored, key=lambda pair: pair[0])
    if best:
        return found
    return GENERAL if GENERAL.words & set(words) else None


def service_in(text: str) -> str:
    """The service a text names or most likely means; "" when it names none."""
    lowered = text.lower()
    explicit = _EXPLICIT.search(lowered)
    if explicit:
        return explicit.group(1)
    words = words_of(lowered)
    for word in words:
        if word in _COMMON_SERVICES:
            return word
    return next((_STORES[word] for word in words if word in _STORES), "")


def is_store(service: str) -> bool:
    """Whether a service is a data store by its name."""
    return service in _STORES.values() or service in {"redis", "mysql", "kafka", "rabbitmq"}
