"""After a remediation was decided: verify it, accept a no, and never repeat what may have happened."""

from __future__ import annotations

from runs.claude.simulator.answer import Answer, Call
from runs.claude.simulator.brain import calls, judgement, report, ticket
from runs.claude.simulator.brain.case import READERS, REFUSALS, Case
from runs.claude.simulator.brain.diagnosis import diagnose
from runs.claude.simulator.brain.evidence import Observation
from runs.claude.simulator.brain.outcome import expected, recovered
from runs.claude.simulator.brain.remedy import propose
from runs.claude.simulator.brain.words import choose, sentence

_CAME_BACK = (
    "A later check says that it came back. What I read before is no longer worth anything, so I read the "
    "same metrics again before I say what to do."
)
_LOOKS = 2  # how often the state is read before a person is asked


def follow_up(case: Case) -> Answer | None:
    """What has to happen after the last proposed remediation; None when there was none."""
    if not case.remedies:
        return None
    last = case.remedies[-1]
    if last.error_kind in REFUSALS:
        return _refused(case, last)
    if last.error_kind == "outcome_unknown":
        return _unknown(case, last)
    if last.error_kind in {"stale_precondition", "conflict"}:
        return _stale(case, last)
    if last.is_error or last.error_kind:
        return _failed(case, last)
    return _executed(case, last)


def _refused(case: Case, last: Observation) -> Answer:
    said = f"The call was not run: {sentence(last.message)[:400]}"
    filed = ticket.file(case, f"{said} That is a decision, so I do not try again or work around it.")
    return filed or report.final(case)


def _unknown(case: Case, last: Observation) -> Answer:
    thinking = (
        "Nobody can say whether that call took effect. Repeating it could do it twice, so I only read "
        "the state: the metric it was meant to change, and what was rolled out."
    )
    seen = _look(case, last, [calls.changes_after_action()], thinking)
    if seen is not None:
        return seen
    filed = ticket.file(case, "The state is read; a person should confirm what was done.")
    return filed or report.final(case)


def _stale(case: Case, last: Observation) -> Answer:
    thinking = (
        f"What I proposed no longer fits: {sentence(last.message)[:300]} Somebody or something changed "
        "it meanwhile. I read the present state before I say anything else."
    )
    seen = _look(case, last, [calls.changes_after_action()], thinking)
    if seen is not None:
        return seen
    again = propose(case) if diagnose(case).kind != "healthy" and not recovered(case, last) else None
    return again or ticket.file(case, "The picture changed under way.") or report.final(case)


def _failed(case: Case, last: Observation) -> Answer:
    reason = (
        f"The remediation did not go through: {sentence(last.message)[:300]} I leave the next "
        "step to a person."
    )
    return ticket.file(case, reason) or report.final(case)


def _executed(case: Case, last: Observation) -> Answer:
    since = max(last.turn, case.came_back)
    looks = len({one.turn for one in case.results_of("get_metrics") if one.turn > since})
    well = recovered(case, last) and (looks > 0 or since == last.turn)
    if looks == 0 or (not well and looks < _LOOKS):
        made = _state(case, last, looks)
        if made:
            came_back = since > last.turn and not looks
            return Answer(_CAME_BACK if came_back else _before_look(last, looks), calls=made)
    if well or looks == 0:
        return report.final(case)  # nothing to look with leaves the remediation's own check
    reason = (
        "It came back, so the action was no cure. I do not repeat it; somebody should take over."
        if since > last.turn
        else "The action was carried out, but the numbers have not returned to normal. "
        "Somebody should take over."
    )
    return ticket.file(case, reason) or report.final(case)


def _before_look(last: Observation, looks: int) -> str:
    if looks:
        return "Not back to normal yet. Some effects need a little time, so I look once more before I judge."
    check = last.data.get("verification")
    observed = ""
    if isinstance(check, dict) and check.get("passed") is not None:
        observed = " Its own check " + ("passed." if check["passed"] else "did not pass.")
    return choose(
        str(last.input),
        f"It was approved and carried out.{observed} I do not take its word for it: I read the "
        "metrics again.",
        f"Approved and executed.{observed} Now the part that counts: do the numbers come back, and "
        "stay there?",
    )


def _look(case: Case, last: Observation, more: list[Call], thinking: str) -> Answer | None:
    """Read the state once after the action."""
    if any(one.turn > last.turn and one.name in READERS for one in case.observations):
        return None
    made = _state(case, last, 0) + tuple(call for call in more if call.name in case.tools)
    return Answer(thinking, calls=made) if made else None


def _state(case: Case, last: Observation, looks: int) -> tuple[Call, ...]:
    """At least two metrics that show whether it worked: the promised one and others that were bad."""
    service, metric, _, _ = expected(last)
    names = [(service, metric)] if metric else []
    before = [one for one in case.readings if one.turn < last.turn and not one.label]
    names += [(one.service, one.metric) for one in before if judgement.is_raised(one)]
    names += [(one.service, one.metric) for one in before if one.service == service]
    start = "now-30m" if looks == 0 else "now-15m"
    unique = list(dict.fromkeys(names))[:3]
    return tuple(calls.metric(*name, start=start) for name in unique if "get_metrics" in case.tools)
