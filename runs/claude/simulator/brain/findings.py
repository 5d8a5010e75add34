"""What was found so far, in sentences built from the data."""

from __future__ import annotations

from datetime import timedelta

from runs.claude.simulator.brain import judgement, knowledge
from runs.claude.simulator.brain.case import Case
from runs.claude.simulator.brain.diagnosis import SOON, Diagnosis, focus, points_at
from runs.claude.simulator.brain.evidence import Deployment, Observation, Pattern, Reading
from runs.claude.simulator.brain.words import (
    amount,
    choose,
    clock,
    counted,
    listed,
    log_line,
    sentence,
)


def news(case: Case) -> str:
    """What the results of the last turn say."""
    last = [one for one in case.observations if one.turn == case.turn - 1]
    names = {one.name for one in last if not one.error_kind}
    parts = [
        _failures(case) if "search_logs" in names and case.turn == 2 else _warnings(case, last),
        _changes(case) if "list_recent_deployments" in names else "",
        _signs(case),
    ]
    return " ".join(filter(None, parts))


def _failures(case: Case) -> str:
    failing = [pattern for pattern in case.patterns if judgement.significant(pattern)]
    if not failing:
        return choose(
            case.question,
            "The error logs are quiet: nothing beyond what any hour brings.",
            "No service logs errors worth the name in the last hour.",
        )
    total = sum(pattern.count for pattern in failing)
    top = failing[0]
    mine = sum(pattern.count for pattern in failing if set(pattern.services) & set(top.services))
    lines = counted(total, "error line")
    share = f"{mine:,} of {lines} come" if mine < total else f"all {lines} come"
    return (
        f"The errors are not spread evenly: {share} from {listed(top.services)}, most of them "
        f"{log_line(top.text)}, since {clock(top.first)} [{top.evidence_id}]."
    )


def _warnings(case: Case, last: list[Observation]) -> str:
    """What a search for the warnings of one service added."""
    if not any(one.name == "search_logs" for one in last):
        return ""
    ids = {one.evidence_id for one in last}
    new = [pattern for pattern in case.patterns if pattern.evidence_id in ids and not pattern.is_failure]
    marked = [one for one in new if any(points_at(one, deployment) for deployment in case.deployments)]
    if not marked:
        return f"What {listed(new[0].services)} warns about is the kind that any day brings." if new else ""
    top = marked[0]
    return (
        f"The warnings of {listed(top.services)} are telling: {counted(top.count, 'line')} "
        f"{log_line(top.text)}, all from {listed(top.versions)}, none before {clock(top.first)} "
        f"[{top.evidence_id}]."
    )


def _changes(case: Case) -> str:
    if not case.deployments:
        return "Nothing was rolled out in the last day, so a release is not the first suspect."
    near = [one for one in case.deployments if (one.minutes_before_alert or 0) >= 0]
    if not near:
        return ""
    nearest = near[0]
    others = len(case.deployments) - 1
    more = f" ({counted(others, 'other change')} in the last day)" if others else ""
    remark = choose(
        nearest.id,
        "That is a coincidence until the numbers say otherwise.",
        "Close in time is a reason to look, not a proof.",
    )
    if (nearest.minutes_before_alert or 0) > 90:
        remark = "That is too long ago to be the obvious suspect."
    return f"The last change was {nearest.name}, {_before(case, nearest)}{more}. {remark}"


def _before(case: Case, deployment: Deployment) -> str:
    minutes = deployment.minutes_before_alert
    if minutes is None:
        return f"at {clock(deployment.at)}"
    event = "earlier" if case.symptom in (None, knowledge.GENERAL) else "before the alert"
    return f"{minutes:.0f} minutes {event}" if minutes < 180 else f"{minutes / 60:.0f} hours {event}"


def _signs(case: Case) -> str:
    """The readings of the last turn."""
    fresh = [one for one in case.readings if one.turn == case.turn - 1]
    parts = [f"{in_words(reading)} [{reading.evidence_id}]" for reading in fresh[:4]]
    return sentence("; ".join(parts)) if parts else ""


def in_words(reading: Reading) -> str:
    """A reading, against yesterday when it was compared."""
    return judgement.against_yesterday(reading) or judgement.described(reading)


def leading(case: Case, found: Diagnosis) -> str:
    """The explanation that leads, as a clause."""
    match found.kind:
        case "release" if found.deployment is not None:
            return f"{found.deployment.name} did this"
        case "held_sessions":
            return f"{found.service} takes connections and does not give them back"
        case "load":
            return f"{found.service} gets more traffic than it can take"
        case "healthy":
            noise = "" if case.symptom in (None, knowledge.GENERAL) else " and the alert is noise"
            return f"nothing is wrong with {focus(case) or 'the services'}{noise}"
        case "blind":
            return "I cannot tell yet, because nothing that I asked for came back with numbers"
        case "outside":
            return "the trouble comes from outside of what I can change"
        case _:
            return f"{found.service or 'some service'} has a fault of its own that no release explains"


def reasons_against(case: Case, deployment: Deployment) -> str:
    """Why a deployment is under suspicion: the time, and what only its version does."""
    reasons = []
    own = [one for one in case.readings if one.service == deployment.service and judgement.is_raised(one)]
    close = [one for one in own if judgement.follows(judgement.onset(one), deployment.at, SOON)]
    if close:
        reasons.append(
            f"{close[0].metric} left its normal range {_apart(close[0], deployment)} its rollout at "
            f"{clock(deployment.at)}"
        )
    marked = [pattern for pattern in case.patterns if points_at(pattern, deployment)]
    if marked:
        top = marked[0]
        reasons.append(
            f"{counted(top.count, 'line')} {log_line(top.text)} come from {deployment.version} alone"
        )
    parted = _parted(case, deployment)
    if parted:
        reasons.append(parted)
    return sentence(listed(reasons)) if reasons else ""


def _apart(reading: Reading, deployment: Deployment) -> str:
    """How far a change is from a rollout; measured onsets are good to a minute or two."""
    start = judgement.onset(reading)
    assert start is not None and deployment.at is not None
    minutes = round((start - deployment.at).total_seconds() / 60)
    return "within two minutes of" if abs(minutes) <= 2 else f"{minutes} minutes after"


def _parted(case: Case, deployment: Deployment) -> str:
    """The same metric on the new and on the old version, when it was read by version."""
    split = [one for one in case.readings if one.service == deployment.service and one.label]
    new = [one for one in split if one.label == deployment.version]
    old = [
        one
        for one in split
        if one.label != deployment.version and one.metric == (new[0].metric if new else "")
    ]
    if not new or not old or not judgement.is_raised(new[-1]):
        return ""
    here, there = new[-1], old[-1]
    return (
        f"{here.metric} is {amount(here.current, here.unit)} on {here.label} and "
        f"{amount(there.current, there.unit)} on {there.label} at the same time"
    )


def ruled_out(case: Case, found: Diagnosis) -> list[str]:
    """Explanations that the data speaks against, in words, with the evidence."""
    out = []
    for reading in case.readings:
        if reading.metric == "request_rate" and judgement.is_usual(reading):
            out.append(f"Not traffic: {judgement.against_yesterday(reading)} [{reading.evidence_id}]")
    holds = case.symptom.holds if case.symptom else ""
    for reading in case.readings:
        other = reading.service != found.service and not knowledge.is_store(reading.service)
        if holds and reading.metric == holds and other and not judgement.is_raised(reading):
            out.append(f"Not {reading.service}: {judgement.described(reading)} [{reading.evidence_id}]")
    out += [text for text in (_innocent(found, one) for one in case.deployments[:4]) if text]
    return list(dict.fromkeys(out))[:4]


def _innocent(found: Diagnosis, deployment: Deployment) -> str:
    """Why another change is not it; "" when nothing can be said."""
    start = judgement.onset(found.signs[0]) if found.signs else None
    if start is None or deployment.at is None:
        return ""
    if found.deployment is not None and deployment.id == found.deployment.id:
        return ""
    cited = f"[{deployment.evidence_id}]"
    if start - deployment.at > timedelta(minutes=90):
        return (
            f"Not {deployment.name}: rolled out at {clock(deployment.at)}, long before it began "
            f"at {clock(start)} {cited}"
        )
    if deployment.at <= start and deployment.service != found.service:
        return f"Not {deployment.name}: also recent, but the signs are on {found.service} {cited}"
    return ""


def calm(case: Case) -> str:
    """What speaks for there being nothing wrong."""
    compared = [one for one in newest(case) if judgement.against_yesterday(one)]
    parts = [f"{judgement.against_yesterday(one)} [{one.evidence_id}]" for one in compared[:2]]
    within = [one for one in newest(case) if one not in compared and one.warn is not None and not one.label]
    parts += [
        f"{judgement.described(one)}, below its warning threshold of {amount(one.warn, one.unit)} "
        f"[{one.evidence_id}]"
        for one in within[:2]
        if one.direction == "above"
    ]
    if any(case.results_of("search_logs")) and not any(judgement.significant(one) for one in case.patterns):
        parts.append("no service logs failures beyond single lines")
    return sentence("; ".join(parts)) if parts else ""


def newest(case: Case) -> list[Reading]:
    """The newest reading of every metric, in the order of first reading."""
    return list({(one.service, one.metric, one.label): one for one in case.readings}.values())


def lines_of(pattern: Pattern) -> str:
    """A log pattern as a line of evidence."""
    lines = f"{counted(pattern.count, 'line')} of {listed(pattern.services)}"
    return f"{lines}: {log_line(pattern.text, 110)} [{pattern.evidence_id}]"
