"""What became of the proposed remediation, for follow-ups and the final answer."""

from __future__ import annotations

from typing import Literal

from runs.claude.simulator.brain import judgement
from runs.claude.simulator.brain.case import REFUSALS, Case
from runs.claude.simulator.brain.diagnosis import Diagnosis
from runs.claude.simulator.brain.evidence import Observation, Reading, number
from runs.claude.simulator.brain.words import amount, listed, quoted

State = Literal["none", "refused", "unknown", "failed", "recovered", "not recovered"]


def state(case: Case) -> State:
    """Where the last remediation stands."""
    if not case.remedies:
        return "none"
    last = case.remedies[-1]
    if last.error_kind in REFUSALS:
        return "refused"
    if last.error_kind == "outcome_unknown":
        return "unknown"
    if last.is_error or last.error_kind:
        return "failed"
    return "recovered" if recovered(case, last) else "not recovered"


def expected(remedy: Observation) -> tuple[str, str, str, float | None]:
    """(service, metric, comparison, value) that a remediation promised."""
    effect = remedy.input.get("expected_effect")
    effect = effect if isinstance(effect, dict) else {}
    return (
        str(effect.get("service_name") or ""),
        str(effect.get("metric") or ""),
        str(effect.get("comparison") or "below"),
        number(effect.get("value")),
    )


def recovered(case: Case, remedy: Observation) -> bool:
    """Whether the promised value is reached, and nothing that was read since is critical."""
    service, metric, comparison, value = expected(remedy)
    newest = {(one.service, one.metric): one for one in readings_since(case, remedy)}
    promised = newest.get((service, metric))
    if promised is None or promised.current is None or value is None:
        return False
    reached = promised.current < value if comparison == "below" else promised.current > value
    return reached and not any(judgement.is_critical(one) for one in newest.values())


def readings_since(case: Case, remedy: Observation) -> list[Reading]:
    """What was read after a remediation."""
    return [one for one in case.readings if one.turn > remedy.turn]


def target(remedy: Observation) -> str:
    """The remediation in words: what on what."""
    return f"{remedy.name} on {remedy.input.get('deployment_id') or remedy.input.get('service_name')}"


def blamed(case: Case, found: Diagnosis) -> str:
    """What caused it, named by what was acted on: after a fix the live signs are gone."""
    last = case.remedies[-1]
    wanted = last.input.get("deployment_id")
    for deployment in case.deployments:
        if wanted and deployment.id == wanted:
            return deployment.name
    return str(last.input.get("service_name") or found.service or "it")


def story(case: Case, found: Diagnosis) -> str:
    """What was wrong and what put it right, in one clause."""
    last, who = case.remedies[-1], blamed(case, found)
    trouble = f"the problem with the {case.symptom.name}" if case.symptom else "the problem"
    match last.name:
        case "revert_deployment":
            back = next(
                (one.previous for one in case.deployments if one.id == last.input.get("deployment_id")), ""
            )
            return f"{who} caused {trouble}, and going back{f' to {back}' if back else ''} ended it"
        case "restart_connection_pool":
            return f"{who} held connections without using them, and ending those sessions brought it back"
        case _:
            return f"{who} was too small for its traffic, and more replicas brought it back"


def action(case: Case) -> str:
    """What was done, for the final answer; "" when nothing was proposed."""
    if not case.remedies:
        return ""
    last = case.remedies[-1]
    match state(case):
        case "refused":
            return (
                f"Action. {target(last)} was proposed and did not run. The answer was: "
                f"{quoted(last.message, 300)}"
            )
        case "unknown":
            return f"Action. {target(last)} was approved; its outcome is unknown, so it was not repeated."
        case "failed":
            return f"Action. {target(last)} was approved and did not go through: {quoted(last.message, 200)}."
        case _:
            cited = f" [{last.evidence_id}]" if last.evidence_id else ""
            return f"Action. {target(last)}, approved by a person and executed{cited}."


def whose_turn(case: Case) -> str:
    """Who has the next step after a remediation that was not approved."""
    match case.remedies[-1].error_kind:
        case "expired":
            return "Nobody decided in time; whoever takes the ticket can."
        case "denied":
            return "A rule forbids this action to the agent; a person can take it."
        case _:
            return "The person who declined knows why; the next step is theirs."


def verification(case: Case) -> str:
    """The numbers after the action; "" when nothing was executed or read."""
    if not case.remedies:
        return ""
    newest = {
        (one.service, one.metric): one for one in readings_since(case, case.remedies[-1]) if not one.label
    }
    if not newest:
        return ""
    parts = [
        f"{one.metric} of {one.service} is at {amount(one.current, one.unit)}{_was(case, one)} "
        f"[{one.evidence_id}]"
        for one in newest.values()
    ]
    return f"Verification. {listed(parts)}."


def _was(case: Case, reading: Reading) -> str:
    """The value at the time of the decision."""
    last = case.remedies[-1]
    for one in reversed(case.readings):
        same = (one.service, one.metric, one.label) == (reading.service, reading.metric, reading.label)
        if same and one.turn < last.turn:
            return f" (before: {amount(one.current, one.unit)})"
    return ""


def last_look(case: Case) -> str:
    """What the newest readings after an action say, to think about before the end."""
    match state(case):
        case "recovered":
            return "The numbers are back: " + verification(case).removeprefix("Verification. ")
        case "not recovered":
            return "The numbers are not back to normal."
        case _:
            return ""


def residual_risk(case: Case, found: Diagnosis) -> str:
    """What can still go wrong after a successful action."""
    last = case.remedies[-1]
    who = blamed(case, found)
    match last.name:
        case "revert_deployment":
            return (
                f"Left to do. {who} must not be rolled out again before its fault is fixed; what "
                "else it carried is gone for now. Keep an eye on the metrics above for the next half hour."
            )
        case "restart_connection_pool":
            return (
                f"Left to do. This frees connections but does not explain why {who} kept them. "
                "Without a fix in the code it will come back; watch the metric."
            )
        case _:
            return f"Left to do. {who} now runs larger; scale it back when the traffic has gone."
