"""The embedded backend: one simulated world per run, with its clock and its actions in the database."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from tools.backends.base import Performed, PoolFacts
from tools.base import ToolContext, ToolError
from tools.estate import logs, metrics, shop
from tools.estate.catalogue import CATALOGUE
from tools.estate.deployments import deployments
from tools.estate.scenarios import SCENARIOS, match
from tools.estate.timeline import Action, ActionKind
from tools.estate.world import Estate, estate
from tools.models import World, WorldAction
from tools.records import Deployment, GroupBy, LogLine, MetricDefinition, Series

LOG_RETENTION_SECONDS = 3 * 86400.0


@dataclass(frozen=True)
class ScenarioInfo:
    """A scenario for people: the form and the command line. Never shown to an agent."""

    id: str
    title: str
    alert: str


def scenarios() -> list[ScenarioInfo]:
    """All scenarios, in the order they are offered."""
    return [ScenarioInfo(one.id, one.title, one.alert) for one in SCENARIOS.values()]


def match_scenario(text: str) -> str:
    """The id of the scenario whose alert fits the text best; a healthy estate when none fits."""
    return match(text).id


def open_world(key: str, scenario: str, *, now: datetime, seed: int = 7) -> None:
    """Create the world of a run; its alert fires at `now`. Opening it again changes nothing.

    Raises ValueError for an unknown scenario.
    """
    if scenario not in SCENARIOS:
        raise ValueError(f'There is no scenario "{scenario}". Use one of: {", ".join(SCENARIOS)}.')
    world = World(key=key, scenario=scenario, seed=seed, alert_at=now)
    World.objects.bulk_create([world], ignore_conflicts=True)  # one statement, without a savepoint


def connect(context: ToolContext) -> EstateBackend:
    """The backend for this run's world. Raises ToolError(not_configured) when there is no such world."""
    world = World.objects.filter(key=context.world).first()
    if world is None or world.scenario not in SCENARIOS:
        raise ToolError(
            "not_configured",
            "This run has no environment to look at, so no tool can see anything. Say so to the person.",
        )
    return EstateBackend(world, context.environment)


class EstateBackend:
    """One world, as the incident tools see it."""

    name = "estate"
    log_retention_seconds = LOG_RETENTION_SECONDS

    def __init__(self, world: World, environment: str) -> None:
        self.environment = environment
        self._world = world
        self._now = self._clock()
        self._estate = self._load()

    def _load(self) -> Estate:
        rows = self._world.actions.order_by("at", "id")
        actions = tuple(
            Action(row.at, cast(ActionKind, row.kind), row.service, tuple(sorted(row.details.items())))
            for row in rows
        )
        alert_at = self._world.alert_at.timestamp()
        return estate(SCENARIOS[self._world.scenario], self._world.seed, alert_at, actions)

    def _clock(self) -> float:
        passed = max(0.0, (timezone.now() - self._world.opened_at).total_seconds())
        return self._world.alert_at.timestamp() + passed + self._world.skipped_seconds

    def now(self) -> float:
        """The world's time. It stands still during one call."""
        return self._now

    def alerted_at(self) -> float:
        """When the alert fired."""
        return self._world.alert_at.timestamp()

    def services(self) -> list[str]:
        """The names of all services."""
        return list(shop.SERVICES)

    def log_lines(self, start: float, end: float, service: str | None, min_level: str) -> list[LogLine]:
        """Lines with start <= at < end, oldest first."""
        tick, last = self._tick(start), self._tick(end)
        names = [service] if service else list(logs.WRITERS)
        found: list[LogLine] = []
        while tick <= last:
            for name in names:
                found += logs.lines(self._estate, name, tick, min_level)
            tick += 1
        found = [line for line in found if start <= line.at < end]
        found.sort(key=lambda line: line.at)
        return found

    def metrics(self, service: str) -> dict[str, MetricDefinition]:
        """The catalogue of one service."""
        return CATALOGUE[service]

    def series(
        self, service: str, metric: str, start: float, end: float, group_by: GroupBy, most_samples: int
    ) -> list[Series]:
        """Samples of the range, on the ten-second grid."""
        first, last = self._tick(start), self._tick(end)
        stride = max(1, -(-(last - first) // most_samples))
        first += (last - first) % stride  # so that the last sample is the current one
        return metrics.series(self._estate, service, metric, first, last, stride, group_by)

    def value(self, service: str, metric: str, at: float) -> float:
        """One sample."""
        return metrics.value(self._estate, service, metric, self._tick(at))

    def deployments(self) -> list[Deployment]:
        """All deployments until now, newest first."""
        return deployments(self._estate, self._now)

    def pool(self, service: str) -> PoolFacts:
        """The pool of a service, now."""

        def current(metric: str, of: str = service) -> float:
            return self.value(of, metric, self._now)

        return PoolFacts(
            replicas=self.replicas(service),
            size=round(current("db_pool_size")),
            in_use=round(current("db_pool_in_use")),
            idle_in_transaction=round(current("db_sessions_idle_in_tx")),
            oldest_seconds=current("db_longest_transaction"),
            server_used=round(current("db_connections_used", "postgres")),
            server_limit=shop.POSTGRES_LIMIT - shop.POSTGRES_RESERVED,
        )

    def replicas(self, service: str) -> int:
        """How many instances are asked for."""
        return self._estate.timeline.replicas_wanted(service, self._now - self.alerted_at())

    def replica_limit(self, service: str) -> int:
        """How many instances the service may have; 0 when tools may not change it."""
        known = shop.SERVICES[service]
        return known.most_replicas if known.remediable else 0

    def find_action(self, key: str) -> Performed | None:
        """What was done under this idempotency key in this world."""
        row = WorldAction.objects.filter(idempotency_key=key).first()
        return None if row is None else self._performed(row)

    def perform(self, kind: str, service: str, details: dict[str, Any], key: str) -> Performed:
        """Record the action once; the world follows from the rows."""
        values = {
            "world": self._world,
            "kind": kind,
            "service": service,
            "details": details,
            "at": self._now - self.alerted_at(),
        }
        try:
            with transaction.atomic():
                row = WorldAction.objects.create(idempotency_key=key, **values)
        except IntegrityError:  # another attempt of the same call was faster
            row = WorldAction.objects.get(idempotency_key=key)
        self._estate = self._load()
        return self._performed(row)

    def _performed(self, row: WorldAction) -> Performed:
        if row.world_id != self._world.pk:
            raise ToolError("conflict", "This idempotency key belongs to a call in another environment.")
        return Performed(self.alerted_at() + row.at, row.answer, dict(row.details))

    def conclude(self, key: str, answer: str, until: float) -> None:
        """Keep the answer, and move the world's clock ahead to `until` instead of waiting for it."""
        with transaction.atomic():
            self._world = World.objects.select_for_update().get(pk=self._world.pk)
            missing = until - self._clock()
            WorldAction.objects.filter(idempotency_key=key, answer="").update(answer=answer)
            if missing > 0:
                World.objects.filter(pk=self._world.pk).update(skipped_seconds=F("skipped_seconds") + missing)

    def pause(self, seconds: float) -> None:
        """Take as long as a real backend would, scaled by AGENTOPS_PACE."""
        pace = float(settings.AGENTOPS_PACE)
        if pace > 0:
            time.sleep(min(5.0, seconds * pace))

    def _tick(self, at: float) -> int:
        return self._estate.tick_of(at - self.alerted_at())
