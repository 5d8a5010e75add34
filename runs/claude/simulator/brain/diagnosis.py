"""What the evidence so far says together: which explanation stands, and which are ruled out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from runs.claude.simulator.brain import judgement, knowledge
from runs.claude.simulator.brain.case import Case
from runs.claude.simulator.brain.evidence import Deployment, Pattern, Reading

Kind = Literal["release", "held_sessions", "load", "outside", "healthy", "unclear", "blind"]

SOON = timedelta(minutes=30)  # a release that breaks something does so within half an hour
_ENOUGH = 4
# Problems that no remediation at hand can solve; a person has to.
_OUTSIDE = frozenset({"certificate", "disk", "dependency"})


@dataclass(frozen=True)
class Diagnosis:
    """The best explanation so far. `signs` and `patterns` are what speaks for it, most telling first."""

    kind: Kind
    service: str
    deployment: Deployment | None
    signs: tuple[Reading, ...]
    patterns: tuple[Pattern, ...]

    @property
    def evidence_ids(self) -> list[str]:
        """The results it rests on, each once, in order."""
        cited = [pattern.evidence_id for pattern in self.patterns[:2]]
        cited += [sign.evidence_id for sign in self.signs]
        if self.deployment is not None:
            cited.append(self.deployment.evidence_id)
        return list(dict.fromkeys(identifier for identifier in cited if identifier))


def diagnose(case: Case) -> Diagnosis:
    """The explanation that fits the evidence best."""
    signs = _abnormal(case)
    failing = [pattern for pattern in case.patterns if judgement.significant(pattern)]
    suspect, weight = _suspect(case, signs)
    service = focus(case)
    if suspect is not None and weight >= _ENOUGH and (signs or failing):
        return _because(case, "release", suspect.service, suspect, signs, failing)
    holder = _holder(case, signs)
    if holder:
        return _because(case, "held_sessions", holder, None, signs, failing)
    if not signs and not failing:
        # Nothing bad seen means well only if something was seen.
        return Diagnosis("healthy" if case.readings else "blind", service, None, (), ())
    if case.symptom is not None and case.symptom.name in _OUTSIDE:
        return _because(case, "outside", service, None, signs, failing)
    if _is_load(case, service):
        return _because(case, "load", service, None, signs, failing)
    return _because(case, "unclear", service, None, signs, failing)


def focus(case: Case) -> str:
    """The service to look at: the one that fails most, else the one named, else any it may mean."""
    failing = [one for pattern in case.patterns if judgement.significant(pattern) for one in pattern.services]
    for service in failing:
        if not knowledge.is_store(service):
            return service
    named = knowledge.service_in(case.question)
    known = case.services
    if named and not knowledge.is_store(named) and named not in case.unknown_services:
        return named
    clients = [service for service in known if not knowledge.is_store(service)]
    return (clients or failing or [named])[0]


def _because(
    case: Case,
    kind: Kind,
    service: str,
    deployment: Deployment | None,
    signs: list[Reading],
    failing: list[Pattern],
) -> Diagnosis:
    """A diagnosis whose signs and patterns belong to the service, or, when none does, to anything."""
    own = [sign for sign in signs if sign.service == service]
    patterns = [pattern for pattern in failing if service in pattern.services]
    if deployment is not None:
        only = [pattern for pattern in case.patterns if points_at(pattern, deployment)]
        patterns = [*only, *(pattern for pattern in patterns if pattern not in only)]
    return Diagnosis(kind, service, deployment, tuple(own or signs)[:4], tuple(patterns or failing)[:4])


def _abnormal(case: Case) -> list[Reading]:
    """The newest reading of every metric that is raised now, the most telling first."""
    newest = {(one.service, one.metric, one.label): one for one in case.readings}
    raised = [reading for reading in newest.values() if judgement.is_raised(reading)]
    order = case.symptom.metrics if case.symptom else knowledge.GENERAL.metrics
    ranks = {metric: rank for rank, metric in enumerate(order)}
    return sorted(raised, key=lambda one: (ranks.get(one.metric, len(ranks)), bool(one.label)))


def _suspect(case: Case, signs: list[Reading]) -> tuple[Deployment | None, int]:
    """The deployment that most speaks against, and how much."""
    standing = [one for one in case.deployments if one.status not in {"reverted", "rolled_back", "failed"}]
    scored = [(_weight(case, deployment, signs), deployment) for deployment in standing]
    if not scored:
        return None, 0
    weight, deployment = max(scored, key=lambda pair: pair[0])
    return deployment, weight


def _weight(case: Case, deployment: Deployment, signs: list[Reading]) -> int:
    """Points against a deployment: its own service got worse, soon after it, on its version only."""
    own = [sign for sign in signs if sign.service == deployment.service]
    weight = 1 if own else 0
    if any(judgement.follows(judgement.onset(sign), deployment.at, SOON) for sign in own):
        weight += 3
    marked = [pattern for pattern in case.patterns if points_at(pattern, deployment)]
    if marked:
        weight += 2
    if any(judgement.significant(pattern) for pattern in marked):
        weight += 1
    if own and any(sign.label == deployment.version for sign in own):
        weight += 3
    return weight


def points_at(pattern: Pattern, deployment: Deployment) -> bool:
    """Whether these lines come from the deployed version of the service only, and not before it was there."""
    if pattern.first and deployment.at and pattern.first < deployment.at - timedelta(minutes=2):
        return False
    return (
        pattern.level in {"warning", "error", "critical"}
        and pattern.count >= 3
        and pattern.services == (deployment.service,)
        and pattern.versions == (deployment.version,)
    )


def _holder(case: Case, signs: list[Reading]) -> str:
    """The client service that holds a shared resource without using it."""
    metric = case.symptom.holds if case.symptom else ""
    held = [one for one in signs if one.metric == metric and not knowledge.is_store(one.service)]
    return max(held, key=lambda one: one.current or 0).service if held else ""


def _is_load(case: Case, service: str) -> bool:
    rate = case.latest(service, "request_rate")
    if rate is None or rate.average is None:
        return False
    then = judgement.baseline(rate, "avg")
    grown = then is not None and rate.average > 1.5 * then
    return grown or (rate.trend in {"rising", "step_up"} and judgement.growth(rate) > 0.5)
