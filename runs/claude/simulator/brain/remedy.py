"""Propose one remediation, when the evidence carries it: what, why, and how one will see that it worked."""

from __future__ import annotations

from typing import Any

from runs.claude.simulator.answer import Answer, Call
from runs.claude.simulator.brain import findings, judgement
from runs.claude.simulator.brain.case import Case
from runs.claude.simulator.brain.diagnosis import Diagnosis, diagnose
from runs.claude.simulator.brain.evidence import Reading
from runs.claude.simulator.brain.words import amount, choose, listed, paragraphs, plain

_WITHIN_SECONDS = 600
_MOST_PROPOSALS = 2
_ALTERNATIVES = {  # why this and not the other steps
    "revert_deployment": "Recycling the pool or adding replicas would not remove what the release does, "
    "so the durable step is to go back one version.",
    "restart_connection_pool": "No release explains it, so there is nothing to revert; ending the idle "
    "sessions is the smallest step that frees connections.",
    "scale_service": "There is no fault to remove, only too little capacity.",
}


def propose(case: Case) -> Answer | None:
    """The call of a remediation, alone in its turn; None when nothing at hand fits the explanation."""
    if case.symptom is None or len(case.remedies) >= _MOST_PROPOSALS:
        return None
    found = diagnose(case)
    call = _call_for(case, found)
    if call is None or call.name not in case.tools or _tried(case, call):
        return None
    ruled_out = findings.ruled_out(case, found)
    support = findings.reasons_against(case, found.deployment) if found.deployment else ""
    stands = f"The first hypothesis stands: {findings.leading(case, found)}. {support}"
    excluded = " ".join(f"{text}." for text in ruled_out)
    thinking = paragraphs(findings.news(case), f"{stands} {excluded}".strip(), _why_this(found, call, case))
    return Answer(thinking, calls=(call,))


def _call_for(case: Case, found: Diagnosis) -> Call | None:
    match found.kind:
        case "release":
            return _revert(case, found)
        case "held_sessions":
            return _recycle(case, found)
        case "load":
            return _scale(case, found)
        case _:
            return None


def _revert(case: Case, found: Diagnosis) -> Call | None:
    deployment = found.deployment
    if deployment is None or not deployment.reversible or deployment.carries_migration:
        return None
    back = f" to {deployment.previous}" if deployment.previous else ""
    reason = (
        f"{deployment.name} is the cause: {_signs_in_words(found)}. Reverting{back} removes the "
        "cause; a restart or more replicas would only treat the symptom."
    )
    return _with_effect("revert_deployment", {"deployment_id": deployment.id, "reason": reason}, case, found)


def _recycle(case: Case, found: Diagnosis) -> Call | None:
    reason = (
        f"{found.service} keeps sessions open in a transaction and does nothing with them: "
        f"{_signs_in_words(found)}. Ending only those frees the connections; active sessions are left alone."
    )
    arguments = {"service_name": found.service, "mode": "terminate_idle_in_transaction", "reason": reason}
    return _with_effect("restart_connection_pool", arguments, case, found)


def _scale(case: Case, found: Diagnosis) -> Call | None:
    ready = case.latest(found.service, "replicas_desired") or case.latest(found.service, "replicas_ready")
    if ready is None or not ready.current:
        return None
    replicas = int(ready.current)
    reason = (
        f"Traffic of {found.service} has outgrown its {replicas} replicas: {_signs_in_words(found)}. "
        "Nothing was rolled out that could be reverted."
    )
    arguments = {
        "service_name": found.service,
        "replicas": replicas * 2,
        "expected_current_replicas": replicas,
        "reason": reason,
    }
    return _with_effect("scale_service", arguments, case, found)


def _with_effect(name: str, arguments: dict[str, Any], case: Case, found: Diagnosis) -> Call | None:
    sign = _measure(case, found)
    if sign is None:
        return None
    effect = {
        "service_name": sign.service,
        "metric": sign.metric,
        "comparison": "above" if sign.direction == "below" else "below",
        "value": _target(sign),
        "within_seconds": _WITHIN_SECONDS,
    }
    return Call(name, {**arguments, "evidence_ids": _cited(case, found), "expected_effect": effect})


def _measure(case: Case, found: Diagnosis) -> Reading | None:
    """The metric that will show whether it worked: of the whole service, with a normal value to return to."""
    whole = [sign for sign in found.signs if not sign.label and judgement.normal(sign) is not None]
    own = [sign for sign in whole if sign.service == found.service]
    # What is held is the cause of what is in use: it is the last to return to normal.
    held = [sign for sign in own if case.symptom is not None and sign.metric == case.symptom.holds]
    return next(iter([*held, *own, *whole]), None)


def _target(sign: Reading) -> float:
    """A value between normal and now: the warning threshold when it lies there, else a quarter of the way."""
    usual, current = judgement.normal(sign) or 0.0, sign.current or 0.0
    if sign.warn is not None and min(usual, current) < sign.warn < max(usual, current):
        return sign.warn
    return float(f"{usual + 0.25 * (current - usual):.2g}")


def _cited(case: Case, found: Diagnosis) -> list[str]:
    controls = [one.evidence_id for one in case.readings if one.baseline and judgement.is_usual(one)]
    return list(dict.fromkeys([*found.evidence_ids, *controls]))[:8]


def _signs_in_words(found: Diagnosis) -> str:
    """The readings only: log text is not ours, and the person who decides reads this."""
    whole = [sign for sign in found.signs if not sign.label] or list(found.signs)
    return listed([judgement.described(sign) for sign in whole[:2]]) or "see the cited evidence"


def _why_this(found: Diagnosis, call: Call, case: Case) -> str:
    effect = call.input["expected_effect"]
    unit = next((sign.unit for sign in found.signs if sign.metric == effect["metric"]), "")
    way = "falls below" if effect["comparison"] == "below" else "rises above"
    goal = f"{effect['metric']} of {effect['service_name']} {way} {amount(effect['value'], unit)}"
    alternative = _ALTERNATIVES[call.name]
    close = choose(
        case.question + call.name,
        f"If I am right, {goal} within {plain(_WITHIN_SECONDS / 60)} minutes. A person has to agree first.",
        f"This changes production, so somebody has to approve it. The test of it: {goal}.",
    )
    return f"{alternative} {close}"


def _tried(case: Case, call: Call) -> bool:
    """Whether this was proposed before on the same object, in whatever words."""
    target = call.input.get("deployment_id") or call.input.get("service_name")
    return any(
        one.name == call.name
        and (one.input.get("deployment_id") or one.input.get("service_name")) == target
        and one.error_kind not in {"stale_precondition", "conflict"}
        for one in case.remedies
    )
