"""Learn from calls that did not work: a name that does not exist, a backend that was busy."""

from __future__ import annotations

from difflib import get_close_matches

from runs.claude.simulator.answer import Call
from runs.claude.simulator.brain import calls, knowledge
from runs.claude.simulator.brain.case import READERS, Case
from runs.claude.simulator.brain.evidence import Observation

_BUSY = frozenset({"timeout", "unavailable", "rate_limited"})


def repairs(case: Case) -> list[tuple[Call, str]]:
    """Calls that replace those of the last turn that failed, each with what was learned."""
    found: list[tuple[Call, str]] = []
    for observation in case.observations:
        if observation.turn != case.turn - 1 or observation.name not in READERS:
            continue
        repaired = _repaired(case, observation)
        if repaired is not None and repaired[0] not in [call for call, _ in found]:
            found.append(repaired)
    return found


def _repaired(case: Case, observation: Observation) -> tuple[Call, str] | None:
    asked = str(observation.input.get("metric") or "")
    if observation.error_kind == "unknown_service":
        wrong = str(observation.input.get("service_name") or observation.input.get("service") or "")
        service = _meant(case, wrong)
        if not service or observation.name != "get_metrics":
            return None
        return calls.metric(
            service, asked
        ), f"There is no service called {wrong!r} here; {service} is the one to ask"
    if observation.error_kind == "unknown_metric":
        service = str(observation.input.get("service_name") or "")
        name = _nearest(case, observation, service)
        if not name:
            return None
        return calls.metric(service, name), f"{service} has no metric {asked}; {name} comes closest"
    if observation.error_kind in _BUSY and _made(case, observation) == 1:
        again = Call(observation.name, dict(observation.input))
        return again, f"{observation.name} did not answer ({observation.error_kind}), so I ask once more"
    return None


def _meant(case: Case, wrong: str) -> str:
    """The service of the catalogue that was probably meant."""
    known = case.catalogue
    words = set(knowledge.words_of(case.question))
    named = [service for service in known if service in words]
    failing = [one for pattern in case.patterns if pattern.is_failure for one in pattern.services]
    close = get_close_matches(wrong, known, n=1, cutoff=0.5)
    clients = [service for service in known if not knowledge.is_store(service)]
    return next(iter([*named, *failing, *close, *clients, *known]), "")


def _nearest(case: Case, observation: Observation, service: str) -> str:
    """The metric to read instead: a telling one if it is offered, else the tool's own proposal."""
    offered = observation.data.get("metrics")
    names = [str(name) for name in offered] if isinstance(offered, list) else []
    telling = case.symptom.metrics if case.symptom else knowledge.GENERAL.metrics
    wanted = [name for name in telling if name in names]
    for name in [*wanted, *names]:
        if case.latest(service, name) is None and not case.was_asked(calls.metric(service, name)):
            return name
    return ""


def _made(case: Case, observation: Observation) -> int:
    return sum(
        one.name == observation.name and dict(one.input) == dict(observation.input)
        for one in case.observations
    )
