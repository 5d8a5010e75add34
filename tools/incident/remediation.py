"""What all remediations share: the promised effect, doing it once, checking it, and the approval card."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict

from pydantic import ConfigDict, Field, with_config

from tools.backends.base import Backend
from tools.base import Result, Seen, ToolContext, ToolError
from tools.incident import asking
from tools.incident.times import duration, iso

SAMPLE_SECONDS = 10
PASSES_NEEDED = 3
SHORTEST, LONGEST = 30, 1800
MOST_SAMPLES = 40
Tone = Literal["", "ok", "warn", "bad"]
REASON_FIELD = Field(description="Why this fixes the cause, for the human approver")


@with_config(ConfigDict(extra="forbid"))
class ExpectedEffect(TypedDict):
    """The metric that will show that it worked."""

    service_name: str
    metric: str
    comparison: Literal["below", "above"]
    value: float
    within_seconds: int


Reason = Annotated[str, REASON_FIELD]


@dataclass(frozen=True)
class Effect:
    """An expected effect whose names exist and whose time is within limits."""

    service: str
    metric: str
    comparison: Literal["below", "above"]
    value: float
    within_seconds: int
    warnings: tuple[str, ...]

    def holds(self, value: float) -> bool:
        """Whether a sample is on the promised side."""
        return value < self.value if self.comparison == "below" else value > self.value

    def __str__(self) -> str:
        return f"{self.service} {self.metric} {self.comparison} {self.value:g} within {self.within_seconds} s"


@dataclass(frozen=True)
class Plan:
    """One remediation, checked against what is there now and ready to run."""

    kind: str
    service: str
    details: dict[str, Any]  # plain values only: they are stored with the action
    done: str  # "Reverted api from v2.14.0 to v2.13.2"
    execution: dict[str, Any]
    card: dict[str, Any]


def effect_of(backend: Backend, expected: ExpectedEffect) -> Effect:
    """The expected effect with known names. Raises ToolError for a service or metric that does not exist."""
    service = asking.known_service(backend, expected["service_name"], "expected_effect.service_name")
    metric = asking.known_metric(backend, service, expected["metric"], "expected_effect.metric")
    within, warnings = asking.clamped(
        expected["within_seconds"], 300, SHORTEST, LONGEST, "expected_effect.within_seconds"
    )
    return Effect(service, metric, expected["comparison"], float(expected["value"]), within, warnings)


def changeable(backend: Backend, name: str) -> str:
    """A service that tools may change. Raises ToolError(forbidden) for the others."""
    service = asking.known_service(backend, name, "service_name")
    if backend.replica_limit(service) == 0:
        raise ToolError("forbidden", f"{service} is not changed by tools. Ask a person, with a ticket.")
    return service


def carry_out(context: ToolContext, expected: ExpectedEffect, check: Callable[[Backend], Plan]) -> Result:
    """Check, act once, wait for the effect, answer.

    A call that was already carried out under this idempotency key gets the answer it got then, and nothing
    happens a second time. `check` raises ToolError when the plan no longer fits what is there. A ToolError
    that comes after the action says so with `may_have_acted`.
    """
    backend = asking.connect(context)
    earlier = backend.find_action(context.idempotency_key)
    if earlier is not None and earlier.answer:
        return Result(**json.loads(earlier.answer))
    if earlier is None:
        _act(context, backend, effect_of(backend, expected), check)
    try:
        backend.pause(1.2)
        backend = asking.connect(context)
        return _conclude(context, backend, effect_of(backend, expected))
    except ToolError as error:
        error.may_have_acted = True
        raise


def _act(context: ToolContext, backend: Backend, effect: Effect, check: Callable[[Backend], Plan]) -> None:
    plan = check(backend)
    before = backend.value(effect.service, effect.metric, backend.now())
    execution = {**plan.execution, "done": plan.done, "before": before}
    details = {**plan.details, "execution": json.dumps(execution)}
    backend.perform(plan.kind, plan.service, details, context.idempotency_key)


def _conclude(context: ToolContext, backend: Backend, effect: Effect) -> Result:
    """Verify what is recorded, and keep the answer. Also finishes what a stopped attempt had begun."""
    performed = backend.find_action(context.idempotency_key)
    if performed is None:
        raise ToolError("internal", "The action was not recorded. Read the current state before going on.")
    if performed.answer:
        return Result(**json.loads(performed.answer))
    execution = json.loads(performed.details["execution"])
    done, before = str(execution.pop("done")), float(execution.pop("before"))
    verification, until = _verify(backend, effect, performed.at, before)
    answer: dict[str, Any] = {
        "summary": f"{done}. {_said(effect, verification)}",
        "data": {
            "outcome": "executed",
            "execution": {**execution, "at": iso(performed.at)},
            "verification": verification,
        },
        "source": {"backend": backend.name, "name": backend.environment, "as_of": iso(until)},
        "asked": {"expected_effect": str(effect)},
        "warnings": effect.warnings + _doubts(effect, before),
        "hints": _hints(effect, verification),
    }
    backend.conclude(context.idempotency_key, json.dumps(answer), until)
    return Result(**answer)


def _verify(backend: Backend, effect: Effect, acted_at: float, before: float) -> tuple[dict[str, Any], float]:
    """(what was observed, when watching ended). It passes after three samples in a row that hold."""
    samples: list[tuple[float, float]] = []
    in_a_row = 0
    for elapsed in range(SAMPLE_SECONDS, effect.within_seconds + 1, SAMPLE_SECONDS):
        value = backend.value(effect.service, effect.metric, acted_at + elapsed)
        samples.append((acted_at + elapsed, value))
        in_a_row = in_a_row + 1 if effect.holds(value) else 0
        if in_a_row == PASSES_NEEDED:
            break
    passed = in_a_row == PASSES_NEEDED
    until = samples[-1][0]
    stride = max(1, -(-len(samples) // MOST_SAMPLES))
    shown = samples[::-1][::stride][::-1]
    return {
        "expected": str(effect),
        "observed": samples[-1][1],
        "passed": passed,
        "before": before,
        "after_seconds": round(until - acted_at),
        "samples": [[iso(at), value] for at, value in shown],
    }, until


def _said(effect: Effect, verification: dict[str, Any]) -> str:
    name, waited = f"{effect.metric} of {effect.service}", duration(verification["after_seconds"])
    values = f"{verification['before']:g} before, {verification['observed']:g} now"
    side = f"{effect.comparison} {effect.value:g}"
    if verification["passed"]:
        return f"The expected effect was seen after {waited}: {name} is {side} ({values})."
    return f"The expected effect was NOT seen within {waited}: {name} is not {side} ({values})."


def _doubts(effect: Effect, before: float) -> tuple[str, ...]:
    if effect.holds(before):
        return ("The expected effect was already true before the action, so seeing it proves nothing.",)
    return ()


def _hints(effect: Effect, verification: dict[str, Any]) -> tuple[str, ...]:
    again = f"next: get_metrics(service_name='{effect.service}', metric='{effect.metric}')"
    if verification["passed"]:
        return (f"{again} later, to see that it stays so; check error_rate of the other services too",)
    return (f"{again} to see whether it is moving; if not, the cause is elsewhere",)


def card(
    backend: Backend,
    expected: ExpectedEffect,
    *,
    headline: str,
    of: str,
    action: str,
    chips: list[dict[str, str]],
    changes: list[dict[str, Any]],
    basis: dict[str, Any],
    reversible: bool = True,
) -> dict[str, Any]:
    """The approval card. Everything on it comes from the system that would be changed, not from the agent.

    `reversible`: whether another call brings back what was there before. `basis` is what the decision
    rests on; nothing that moves by itself, such as a metric, belongs there.
    """
    effect = effect_of(backend, expected)
    now = backend.value(effect.service, effect.metric, backend.now())
    return {
        "headline": headline,
        "object": of,
        "environment": backend.environment,
        "action": action,
        "chips": chips,
        "changes": changes,
        "reversible": reversible,
        "basis": basis,
        "effect_if_rejected": f"Nothing changes. {effect.metric} of {effect.service} is {now:g} now.",
        "problem": "",
    }


def recheck(context: ToolContext, *, expected_effect: ExpectedEffect, **said: object) -> Seen:
    """Whether the expected effect holds now; it is gone after as many samples as it took to be seen."""
    backend = asking.connect(context)
    effect, now = effect_of(backend, expected_effect), backend.now()
    samples = [
        backend.value(effect.service, effect.metric, now - SAMPLE_SECONDS * back)
        for back in range(PASSES_NEEDED)
    ]
    holds = any(effect.holds(value) for value in samples)
    side = f"{effect.comparison} {effect.value:g}"
    name = f"{effect.metric} of {effect.service}"
    still = "still" if holds else "no longer"
    return Seen(holds, f"{name} is {samples[0]:g}: {still} {side}, which the change was for.")


def basis(backend: Backend, service: str) -> dict[str, Any]:
    """What a decision about this service rests on: what was last rolled out, and how many instances run."""
    newest = next((one for one in backend.deployments() if one.service == service), None)
    return {
        f"last rollout of {service}": f"{newest.version} ({newest.deployment_id})" if newest else "unknown",
        f"replicas of {service}": backend.replicas(service),
    }


def chip(text: str, tone: Tone = "") -> dict[str, str]:
    """A short fact on the card."""
    return {"text": text, "tone": tone}


def with_warnings(result: Result, warnings: tuple[str, ...]) -> Result:
    """The result with more warnings."""
    return replace(result, warnings=(*result.warnings, *warnings)) if warnings else result
