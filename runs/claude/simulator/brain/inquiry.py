"""The middle of an investigation: look closer at what fails, then try to refute the explanation."""

from __future__ import annotations

from runs.claude.simulator.answer import Answer, Call
from runs.claude.simulator.brain import calls, findings, knowledge
from runs.claude.simulator.brain.case import Case
from runs.claude.simulator.brain.diagnosis import Diagnosis, diagnose, focus
from runs.claude.simulator.brain.repair import repairs
from runs.claude.simulator.brain.words import choose, listed, paragraphs, sentence

_LAST_LOOK = 4  # after so many turns it is time to decide
_LAST_TEST = 6
_AT_ONCE = 3


def look_closer(case: Case) -> Answer | None:
    """Read the telling metrics of the service that stands out, and repair calls that failed."""
    repaired = repairs(case) if case.turn <= _LAST_TEST + 2 else []
    wanted = _telling(case) if case.turn <= _LAST_LOOK else []
    again = [call for call, _ in repaired][:_AT_ONCE]
    room = _AT_ONCE - len(again)
    made = (*again, *case.fresh([call for call in wanted if call not in again], room))
    made = tuple(call for call in made if call.name in case.tools)
    if not made:
        return None
    learned = " ".join(sentence(lesson) for _, lesson in repaired)
    return Answer(paragraphs(findings.news(case), learned, _intent(case, made)), calls=made)


def _telling(case: Case) -> list[Call]:
    """What to read next: of the service in focus, or, without a symptom, the health of several."""
    if case.symptom in (None, knowledge.GENERAL):
        clients = [one for one in case.services if not knowledge.is_store(one)]
        return [
            calls.metric(service, "error_rate") for service in clients if _unread(case, service, "error_rate")
        ]
    service = focus(case)
    if not service or case.symptom is None:
        return []
    return [calls.metric(service, name) for name in case.symptom.metrics[:3] if _unread(case, service, name)]


def _unread(case: Case, service: str, name: str) -> bool:
    """Whether a metric was neither read nor found missing."""
    missing = any(
        one.error_kind and one.input.get("service_name") == service and one.input.get("metric") == name
        for one in case.results_of("get_metrics")
    )
    return not missing and case.latest(service, name) is None


def _intent(case: Case, made: tuple[Call, ...]) -> str:
    metrics = [call for call in made if call.name == "get_metrics"]
    names = list(dict.fromkeys(str(call.input["metric"]) for call in metrics))
    services = list(dict.fromkeys(str(call.input["service_name"]) for call in metrics))
    if not names:
        return "Then I can go on."
    return choose(
        f"{case.question}{case.turn}",
        f"To see how {listed(services)} {'are' if len(services) > 1 else 'is'} doing I read "
        f"{listed(names)}, two hours back, so that the beginning is in the picture.",
        f"Next: {listed(names)} of {listed(services)}. Two hours, because I need the time before it "
        "began too.",
    )


def try_to_refute(case: Case) -> Answer | None:
    """State the hypotheses and make the calls that could refute the leading one."""
    service = focus(case)
    if case.turn > _LAST_TEST or case.remedies or not service:
        return None
    found = diagnose(case)
    made = case.fresh(_tests(case, found, service), _AT_ONCE)
    if not made:
        return None
    return Answer(paragraphs(findings.news(case), _hypotheses(case, found, made)), calls=made)


def _tests(case: Case, found: Diagnosis, service: str) -> list[Call]:
    symptom = case.symptom or knowledge.GENERAL
    usual = [name for name in symptom.metrics if case.latest(service, name)][:1]
    yesterday = [calls.metric_against_yesterday(service, name) for name in usual]
    if found.kind in {"healthy", "unclear", "blind"}:
        return [*yesterday, calls.warnings_of(service)]
    tests = [calls.warnings_of(service), calls.metric_against_yesterday(service, symptom.control)]
    if found.kind == "load":
        tests.append(calls.metric(service, "replicas_desired"))
    if symptom.holds:
        tests += [calls.metric(other, symptom.holds) for other in _others(case, service)[:1]]
    elif any(deployment.service == service for deployment in case.deployments):
        tests.append(calls.metric(service, "error_rate", group_by="version"))
    return tests


def _others(case: Case, service: str) -> list[str]:
    """Other clients of the same store: they show whether the service is the culprit or a victim."""
    return [one for one in case.services if one != service and not knowledge.is_store(one) and _has_pool(one)]


def _has_pool(service: str) -> bool:
    # Edges and proxies have no pool of their own; asking them costs a call and teaches nothing.
    return not any(word in service for word in ("edge", "proxy", "gateway", "cdn", "balancer"))


def _hypotheses(case: Case, found: Diagnosis, made: tuple[Call, ...]) -> str:
    """The leading explanation and its rivals, each with the test that decides."""
    rivals, tests = [], []
    for call in made:
        rival, test = _rival(call, found)
        rivals += [rival] if rival else []
        tests.append(test)
    support = findings.reasons_against(case, found.deployment) if found.deployment else ""
    if found.kind == "blind":
        return f"{sentence(findings.leading(case, found))} I check {listed(tests)}."
    state = f"supported so far: {support.rstrip('.')}" if support else "nothing speaks against it yet"
    theories = [f"(1) {findings.leading(case, found)} - {state}"]
    theories += [f"({number}) {rival} - open" for number, rival in enumerate(rivals, 2)]
    lead = choose(
        case.question + "doubt",
        "Before I believe the first, I try to refute it:",
        "A good fit is not proof, so I check",
        "What could prove the first wrong:",
    )
    return f"Hypotheses: {'; '.join(theories)}. {lead} {listed(tests)}."


def _rival(call: Call, found: Diagnosis) -> tuple[str, str]:
    """(the other explanation a call is about, what it looks at)."""
    if call.name == "search_logs":
        service = str(call.input["service"])
        if found.deployment is None:
            return "", f"what else {service} warns about"
        return "", f"whether the warnings of {service} come from that version only"
    name, service = str(call.input["metric"]), str(call.input["service_name"])
    if call.input.get("compare_to"):
        test = f"whether {name} of {service} differs from yesterday"
        if found.kind == "healthy":
            return f"{service} is worse than on other days", test
        return "there is just more traffic than usual", test
    if name == "replicas_desired":
        return "", f"how many replicas {service} has"
    if call.input.get("group_by") == "version":
        return "every version fails alike", "whether old and new instances fail alike"
    return f"{service} holds the connections and {found.service} is the victim", f"{name} of {service}"
