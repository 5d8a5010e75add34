"""The simulated shop: its services, how they are sized, and what normal looks like."""

from __future__ import annotations

from dataclasses import dataclass

TICK_SECONDS = 10
POSTGRES_LIMIT = 100
POSTGRES_RESERVED = 3  # kept for superusers, as PostgreSQL does


@dataclass(frozen=True)
class Service:
    """How one service is run. `version` is what ran two weeks before the alert."""

    name: str
    version: str
    replicas: int
    pool_per_replica: int = 0
    cpu: float = 0.2
    memory: float = 400e6
    memory_limit: float = 1e9
    most_replicas: int = 1
    remediable: bool = True  # whether our tools may touch it


SERVICES: dict[str, Service] = {
    service.name: service
    for service in (
        Service("shop-edge", "nginx-1.27.4", 2, cpu=0.11, memory=90e6, memory_limit=256e6, most_replicas=6),
        Service(
            "api",
            "v2.12.0",
            4,
            pool_per_replica=10,
            cpu=0.34,
            memory=610e6,
            memory_limit=1.5e9,
            most_replicas=12,
        ),
        Service("worker", "v3.3.1", 2, pool_per_replica=10, cpu=0.22, memory=420e6, most_replicas=8),
        Service("reports", "v1.8.2", 1, pool_per_replica=10, cpu=0.08, memory=350e6, most_replicas=3),
        Service("postgres", "15.8", 1, cpu=0.31, memory=6.1e9, memory_limit=8e9, remediable=False),
        Service("redis", "7.2.5", 1, cpu=0.05, memory=240e6, memory_limit=512e6, remediable=False),
        Service("payments-gateway", "external", 0, remediable=False),
    )
}

ZONES = ("eu-a", "eu-b", "eu-c")

# Healthy values of the coupled model.
ARRIVALS_PER_SECOND = 120.0
API_HOLD_SECONDS = 0.1  # how long one request keeps a database connection: 12 in use by Little's law
API_IDLE_PER_REPLICA = 5
API_THREADS_PER_REPLICA = 40
POOL_TIMEOUT_SECONDS = 30.0
WORKER_JOBS_PER_SECOND = 6.0
WORKER_SESSIONS = 14.0
REPORTS_SESSIONS = 4.0
MONITORING_SESSIONS = 4.0
BASE_ERROR_RATE = 0.002
ROLLOUT_SECONDS = 60.0
DRAIN_SECONDS = 120.0  # grace of a replaced instance: its connections close at the end of it
SCALE_SECONDS = 30.0
