"""The final answer: the verdict first, then cause, evidence, action, verification and what is left."""

from __future__ import annotations

from runs.claude.simulator.answer import Answer
from runs.claude.simulator.brain import findings, judgement, knowledge, outcome, ticket
from runs.claude.simulator.brain.case import Case
from runs.claude.simulator.brain.diagnosis import Diagnosis, diagnose
from runs.claude.simulator.brain.words import choose, listed, paragraphs, quoted

_LABEL = "(Written by the rule-based simulator, not by Claude.)"


def conclude(case: Case) -> Answer:
    """The end of an investigation that needs no action, or can take none."""
    return final(case) if case.observations else _without_data(case)


def final(case: Case) -> Answer:
    """The answer for what was found and done."""
    then = case.at_decision()
    found = diagnose(then)
    parts = [
        _verdict(case, found),
        _cause(then, found),
        _evidence(then, found),
        outcome.action(case),
        outcome.verification(case),
        _tickets(case),
        _left(case, found),
        "" if case.symptom else _LABEL,
    ]
    thinking = choose(
        case.question + str(case.turn),
        "I have what I need. What counts now is to say it plainly: what it was, how I know, what was done.",
        "Time to sum up, with the evidence next to each claim.",
        "That settles it as far as I can. I write down what is known and what is not.",
    )
    return Answer(f"{outcome.last_look(case)} {thinking}".strip(), paragraphs(*parts))


def summary(case: Case) -> Answer:
    """What is known so far, when no more calls may be made."""
    if not case.observations:
        return _without_data(case)
    answer = final(case)
    early = "" if outcome.state(case) == "recovered" else "Stopped early; this is what is known so far. "
    return Answer(f"No more calls are allowed, so I sum up. {answer.thinking}", early + answer.text)


def _without_data(case: Case) -> Answer:
    heard = quoted(case.question, 160)
    have = f" The tools I was given are {listed(sorted(case.tools))}." if case.tools else ""
    return Answer(
        f"I am asked {heard}, but I have looked at nothing and have no tool that I know how to use for it.",
        f"I could not investigate {heard}: none of the tools of this agent reads logs, metrics or "
        f"deployments.{have} I have therefore found nothing out and changed nothing.\n\n{_LABEL}",
    )


def _verdict(case: Case, found: Diagnosis) -> str:
    state = outcome.state(case)
    name = ticket.cause(found).rstrip(".")
    match state, found.kind:
        case "recovered", _:
            return f"Resolved: {outcome.story(case, found)}."
        case "refused", _:
            return (
                "Not resolved: the cause is found, but the proposed action was not approved. "
                f"Suspected: {name}."
            )
        case "unknown", _:
            return (
                "Unclear: an action was approved, but nobody can say whether it took effect. "
                f"Suspected: {name}."
            )
        case "failed", _:
            return f"Not resolved: the approved action did not go through. Suspected: {name}."
        case "not recovered", _:
            return f"Not resolved: the action did not bring the service back. Suspected: {name}."
        case _, "healthy" if case.symptom is None:
            return (
                "I did not recognise a symptom in the question; a general look found nothing "
                "out of the ordinary."
            )
        case _, "healthy":
            seen = list(dict.fromkeys(reading.service for reading in case.readings)) or [
                "everything that was read"
            ]
            verb = "are" if len(seen) > 1 else "is"
            return f"No incident: {listed(seen[:5])} {verb} healthy, so nothing was changed."
        case _, "blind":
            return "I could not find out: the metrics could not be read. Nothing was changed."
        case _, "release" | "held_sessions" | "load":
            return f"Cause found, nothing changed: {name}."
        case _:
            return "Something is wrong, but the evidence does not point at one cause; nothing was changed."


def _cause(case: Case, found: Diagnosis) -> str:
    if found.kind == "healthy":
        return findings.calm(case)
    if found.kind == "release" and found.deployment is not None:
        return f"Cause. {ticket.cause(found)} {findings.reasons_against(case, found.deployment)}"
    return f"Cause. {ticket.cause(found)}"


def _evidence(case: Case, found: Diagnosis) -> str:
    lines = [findings.lines_of(pattern) for pattern in found.patterns[:2]]
    if found.kind == "healthy":
        lines += [f"{findings.in_words(one)} [{one.evidence_id}]" for one in findings.newest(case)[:5]]
    lines += [f"{judgement.described(sign)} [{sign.evidence_id}]" for sign in found.signs[:4]]
    lines += findings.ruled_out(case, found)
    return "Evidence.\n" + "\n".join(f"- {line}" for line in dict.fromkeys(lines)) if lines else ""


def _tickets(case: Case) -> str:
    filed = [str(one.data.get("ticket_id") or "") for one in case.tickets]
    return f"Ticket {listed([name for name in filed if name])} holds the findings." if any(filed) else ""


def _is_alert(case: Case) -> bool:
    return case.symptom is not None and case.symptom is not knowledge.GENERAL


def _left(case: Case, found: Diagnosis) -> str:
    match outcome.state(case), found.kind:
        case "recovered", _:
            return outcome.residual_risk(case, found)
        case "refused", _:
            return f"Left to do. The service is still affected. {outcome.whose_turn(case)}"
        case _, "healthy" if not _is_alert(case):
            return "Left to do. Nothing that the data asks for."
        case _, "healthy":
            return (
                "Left to do. Nothing now; if the alert returns, its threshold is the first thing to look at."
            )
        case _:
            return "Left to do. A person should take it from here, starting with the evidence above."
