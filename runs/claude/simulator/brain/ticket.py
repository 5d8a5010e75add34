"""File a ticket: the record for people when the agent must not or cannot act."""

from __future__ import annotations

from runs.claude.simulator.answer import Answer, Call
from runs.claude.simulator.brain import findings, judgement, knowledge
from runs.claude.simulator.brain.case import REFUSALS, TICKET, Case
from runs.claude.simulator.brain.diagnosis import Diagnosis, diagnose
from runs.claude.simulator.brain.words import listed, sentence

_TITLE = 120


def file(case: Case, thinking: str) -> Answer | None:
    """The turn that files the ticket; None when there is one already, or no tool for it."""
    if TICKET not in case.tools or any(case.results_of(TICKET)):
        return None
    then = case.at_decision()
    found = diagnose(then)
    arguments = {
        "title": _title(case, found)[:_TITLE],
        "severity": _severity(case, found),
        "summary": _summary(case, then, found),
        "suspected_root_cause": cause(found),
        "evidence_ids": found.evidence_ids[:8],
        "services": [found.service] if found.service else [],
    }
    return Answer(
        f"{thinking} I file a ticket, so that the findings are not lost.", calls=(Call(TICKET, arguments),)
    )


def tune(case: Case) -> Answer | None:
    """A note that an alert fires without need; only for alerts that speak of a threshold."""
    found = diagnose(case)
    words = set(knowledge.words_of(case.question))
    if not words & knowledge.WARNING_WORDS or found.kind != "healthy" or TICKET not in case.tools:
        return None
    if any(case.results_of(TICKET)) or not case.readings:
        return None
    arguments = {
        "title": f"Alert fires without need: {' '.join(case.question.split())}"[:_TITLE],
        "severity": "sev4",
        "summary": f"The alert fired, but nothing is wrong. {findings.calm(case)} The threshold or its "
        "duration should be raised, so that people are not woken for it.",
        "suspected_root_cause": "Threshold too close to normal operation.",
        "evidence_ids": [one.evidence_id for one in case.readings if one.evidence_id][:8],
        "services": [found.service] if found.service else [],
    }
    thinking = (
        f"{findings.calm(case)} Acting on a healthy service would only do harm, so I do "
        "not. What is worth doing is to write down that this alert needs a better threshold."
    )
    return Answer(thinking, calls=(Call(TICKET, arguments),))


def hand_over(case: Case) -> Answer | None:
    """A ticket for what cannot be put right from here; only for a question that was understood."""
    found = diagnose(case)
    if case.symptom is None or found.kind == "healthy":
        return None
    reason = (
        f"{findings.news(case)} There is no safe step among my tools for this, so a person has to decide."
    )
    return file(case, reason)


def cause(found: Diagnosis) -> str:
    """The suspected root cause in one sentence."""
    match found.kind:
        case "release" if found.deployment is not None:
            return f"{found.deployment.name} ({found.deployment.id}), rolled out shortly before it began."
        case "held_sessions":
            return f"{found.service} holds database sessions open in transactions."
        case "load":
            return f"More traffic on {found.service} than it has capacity for."
        case "blind":
            return "Not known; the metrics could not be read."
        case "healthy":
            return "None: everything that was read is within its normal range."
        case _:
            return "Not known; the evidence does not point at one cause."


def _title(case: Case, found: Diagnosis) -> str:
    symptom = case.symptom.name if case.symptom else "trouble"
    where = f" on {found.service}" if found.service else ""
    return f"{symptom.capitalize()}{where}: {' '.join(case.question.split())}"


def _severity(case: Case, found: Diagnosis) -> str:
    """sev2 while something is critical, sev3 while something is off, sev4 for information."""
    if found.kind == "healthy":
        return "sev4"
    return "sev2" if any(judgement.is_critical(sign) for sign in found.signs) else "sev3"


def _summary(case: Case, then: Case, found: Diagnosis) -> str:
    parts = [f"Asked: {' '.join(case.question.split())[:200]}."]
    if found.signs:
        parts.append(f"Seen: {listed([judgement.described(sign) for sign in found.signs[:3]])}.")
    if found.deployment is not None:
        parts.append(findings.reasons_against(then, found.deployment))
    parts += [f"{text}." for text in findings.ruled_out(then, found)[:2]]
    if case.remedies:
        last = case.remedies[-1]
        what = f"{last.name} on {last.input.get('deployment_id') or last.input.get('service_name')}"
        ending = "was not approved" if last.error_kind in REFUSALS else "did not settle it"
        parts.append(f"Proposed {what}; it {ending}: {sentence(last.message)[:400]}")
    return " ".join(parts)
