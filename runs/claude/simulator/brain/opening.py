"""The first turn: what the question is about, what may be behind it, and where to look at once."""

from __future__ import annotations

from runs.claude.simulator.answer import Answer, Call
from runs.claude.simulator.brain import calls, knowledge
from runs.claude.simulator.brain.case import Case
from runs.claude.simulator.brain.words import choose, listed, paragraphs, quoted

_SAYS = {
    "search_logs": "the error lines of all services",
    "list_recent_deployments": "what was rolled out in the last day",
}


def open_investigation(case: Case) -> Answer | None:
    """Several independent looks at once, before any theory."""
    if case.observations:
        return None
    made = case.fresh([calls.failures_everywhere(), calls.recent_changes(), *_first_metric(case)])
    if not made:
        return None
    return Answer(paragraphs(_understanding(case), _plan(case, made)), calls=made)


def _first_metric(case: Case) -> list[Call]:
    """The most telling metric of the service that the question most likely means."""
    symptom = case.symptom or knowledge.GENERAL
    service = knowledge.service_in(case.question)
    if not service:
        return [calls.metric("api", symptom.metrics[0])]
    if knowledge.is_store(service) and symptom.store_metrics:
        return [calls.metric(service, symptom.store_metrics[0])]
    return [calls.metric(service, symptom.metrics[0])]


def _understanding(case: Case) -> str:
    heard = quoted(case.question, 120)
    if case.symptom is None:
        return (
            f"I am asked {heard}. I do not recognise a symptom in that, so I have no theory to test. "
            "I can still look around honestly and say what I find."
        )
    if case.symptom is knowledge.GENERAL:
        return (
            f"{heard} is a question about the general state. When something is off it is "
            f"{case.symptom.reasons}, and that shows in the error logs, in the error rates and in "
            "the list of changes."
        )
    return choose(
        case.question,
        f"The alert reads {heard}. Behind a problem with the {case.symptom.name} there is usually one of "
        f"these: {case.symptom.reasons}. I should not pick one before I have seen data.",
        f"{heard}: that is about the {case.symptom.name}. The usual suspects are {case.symptom.reasons}. "
        "Each leaves different traces, so I collect those first.",
        f"What I have is {heard}. Experience says: {case.symptom.reasons}. "
        "Which of these it is should show in the logs, in the metrics and in what changed.",
    )


def _plan(case: Case, made: tuple[Call, ...]) -> str:
    looks = [
        _SAYS.get(call.name) or f"{call.input['metric']} of {call.input['service_name']}" for call in made
    ]
    together = " These do not depend on each other, so I ask for them together." if len(looks) > 1 else ""
    guess = ""
    if any(call.name == "get_metrics" for call in made) and not knowledge.service_in(case.question):
        guess = " No service is named, so api is a guess that the catalogue may correct."
    return f"I start with {listed(looks)}.{together}{guess}"
