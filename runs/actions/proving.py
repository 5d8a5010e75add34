"""Proves from the run's hash chain that people approved this call, before it starts.

State columns are a summary for pages. What lets an effect happen is the chain: the event that asked, the
votes, and what followed. START reads it backwards from the end that the locked run names, and refuses the
call when a row says anything that no event bears.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from runs.actions.change import Change
from runs.agents import PER_TOOL
from runs.models import Approval, Edit, Event, PolicyRule, Resolution, Run, Step, Verdict, Vote, event_hash
from runs.models.eligible import why_no_yes
from runs.models.proof import not_as_asked, sha256

CHUNK = 50  # events read at once, newest first; an approval is rarely further away than that
EDITS = frozenset(
    {"approval.edit_asked", "approval.edit_denied", "approval.edit_opened", "approval.edit_void"}
)
SETTLED = frozenset({"call.finished", "call.refused", "call.unknown"})
RAISES = ("run.resumed", "run.retried")  # events that may say which limits were raised
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)  # of columns that hold anything but their JSON
Said = dict[str, Any]


class Contradiction(Exception):
    """A row says something that the chain of events does not bear; the message is one sentence."""


def why_unproven(current: Change, step: Step, approval: Approval) -> str:
    """Why the record does not bear out that this call was approved and may start; "" when it does.

    Inside the change that starts it, before anything of the start is written.
    """
    try:
        asked, since = _since_asked(current, approval)
        _is_as_asked(approval, asked)
        _is_approved(approval, asked, since)
        if approval.redeemed_at != _did_not_start(step, since):
            raise Contradiction("It was used at another time than it says.")
    except Contradiction as found:
        return str(found)
    except UNREADABLE:
        return "One of its rows cannot be read."
    return ""


def why_not_as_asked(current: Change, approval: Approval) -> str:
    """Why this row is not the question that was put before people; "" when it is.

    A later revision takes over what this one demanded, so it is compared before that is asked.
    """
    try:
        asked, since = _since_asked(current, approval)
        _is_as_asked(approval, asked)
        _votes_fit(approval, since)
    except Contradiction as found:
        return str(found)
    except UNREADABLE:
        return "One of its rows cannot be read."
    return ""


def why_not_edited(current: Change, edit: Edit) -> str:
    """Why this row is not what a person asked to run instead; "" when it is."""
    said: Said = {"editor": edit.by_id, "arguments": edit.arguments, "reason": edit.reason}
    try:
        for event in _backwards(current):
            data = event.fields
            if event.kind == "approval.edit_asked" and data.get("edit") == edit.pk:
                same = data["approval"] == edit.approval_id and all(data[name] == said[name] for name in said)
                return "" if same else f"Edit {edit.pk} is not the one that was asked for."
    except Contradiction as found:
        return str(found)
    except UNREADABLE:
        return "One of its rows cannot be read."
    return f"No event records edit {edit.pk}."


def why_not_its_limits(run_id: int) -> str:
    """Why the limits of this run are not those it began with and people raised since; "" when they are.

    Versions before recorded neither the configuration nor the limits of a fork: what is not there is not
    compared.
    """
    run = Run.objects.only("config", "limits").get(pk=run_id)
    said = Event.objects.filter(run=run, seq=1, kind="run.started").values_list("data", flat=True).first()
    started: Said = json.loads(said) if said else {}
    if started.get("config_sha256", sha256(run.config)) != sha256(run.config):
        return "Its configuration is not the one that it began with."
    if not run.limits or ("parent" in started and "limits" not in started):
        return ""
    expected: Said = dict(started.get("limits", {}))
    per_tool = dict(json.loads(run.config)["limits"].get(PER_TOOL, {}))
    for event in Event.objects.filter(run=run, kind__in=RAISES).order_by("seq"):
        for name, raised in event.fields.get("limits", {}).items():
            if name.startswith(f"{PER_TOOL}."):
                per_tool[name.removeprefix(f"{PER_TOOL}.")] = raised["new"]
                expected[PER_TOOL] = per_tool
            else:
                expected[name] = raised["new"]
    same = json.loads(run.limits) == expected
    return "" if same else "Its limits are not those that it began with and people raised since."


def is_recorded(resolution: Resolution) -> bool:
    """Whether an event in the chain of its run says that this person resolved the outcome like this."""
    name, request_id = resolution.by.get_username(), str(resolution.run.request_id)
    said = {"step": resolution.step.seq, "verdict": resolution.verdict, "evidence": resolution.evidence}
    events = Event.objects.filter(run=resolution.run_id, kind="call.resolved", actor=name)
    return any(event.fields == said and _is_linked(event, request_id) for event in events)


def why_not_proposed(current: Change, step: Step) -> str:
    """Why a call that nobody votes on is not one that the model proposed and may start; "" when it is."""
    turn = Step.objects.filter(pk=step.parent_id).first() if step.parent_id else None
    if turn is None:
        return f"Call {step.seq} belongs to no turn."
    since: list[Event] = []
    try:
        for event in _backwards(current):
            said = event.fields
            if event.kind == "model.finished" and said.get("step") == turn.seq:
                _is_message(turn, step, said)
                _did_not_start(step, since[::-1])
                return ""
            since.append(event)
    except Contradiction as found:
        return str(found)
    except UNREADABLE:
        return "One of its rows cannot be read."
    return f"No event records turn {turn.seq}."


def why_not_given(grant: int) -> str:
    """Why the row of this grant is not what a person gave and calls have used since; "" when it is."""
    rule = PolicyRule.objects.select_related("active").get(pk=grant)
    if rule.active is None:
        return "It is not in force."
    given = rule.active.values
    until = rule.active.at + timedelta(seconds=given["seconds"])
    if rule.uses != given["uses"] or rule.expires_at is None or rule.expires_at > until:
        return "Its uses or its time are not those that were given."
    numbers = list(rule.grant_uses.order_by("number").values_list("number", flat=True))
    recorded = Event.objects.filter(kind="grant.used", data__contains=f'"grant":{grant},')
    if numbers != list(range(1, rule.used + 1)) or recorded.count() != rule.used:
        return "Its uses are not those that were recorded."
    return ""


def _is_message(turn: Step, step: Step, said: Said) -> None:
    """Raises Contradiction unless the recorded message of this turn proposes exactly this call."""
    if said.get("message_sha256") != sha256(turn.message):
        raise Contradiction(f"The message of turn {turn.seq} is not the one that was recorded.")
    proposed = (step.tool_use_id, step.name, json.loads(step.arguments))
    blocks = (block for block in turn.content if block.get("type") == "tool_use")
    if not any((one["id"], one["name"], one["input"]) == proposed for one in blocks):
        raise Contradiction(f"Call {step.seq} is not the one that turn {turn.seq} proposed.")


def _is_linked(event: Event, request_id: str) -> bool:
    """Whether it gives its hash, and continues the event before it as the one after it, or its run, says."""
    around = Event.objects.filter(run=event.run_id, seq__in=(event.seq - 1, event.seq + 1))
    beside = {one.seq: one for one in around}
    before, after = beside.get(event.seq - 1), beside.get(event.seq + 1)
    following = after.previous_hash if after else event.run.last_event_hash
    precedes = before.hash if before else ""
    return event.hash == _hash(event, request_id) == following and event.previous_hash == precedes


def _hash(event: Event, request_id: str) -> str:
    return event_hash(
        previous_hash=event.previous_hash,
        request_id=request_id,
        seq=event.seq,
        kind=event.kind,
        actor=event.actor,
        data=event.data,
        at=event.at,
    )


def _backwards(current: Change) -> Iterator[Event]:
    """The events of the run, newest first, each checked to be the one that the event after it continues.

    Raises Contradiction at the first one that is missing or was changed.
    """
    seq, expected = current.run.last_event, current.run.last_event_hash
    for event in reversed(current.unsaved_events):
        yield event
        seq, expected = event.seq - 1, event.previous_hash
    request_id = str(current.run.request_id)
    while seq:
        found = list(Event.objects.filter(run=current.run, seq__lte=seq).order_by("-seq")[:CHUNK])
        if not found:
            raise Contradiction(f"Event {seq} of its run is missing.")
        for event in found:
            if event.seq != seq or event.hash != expected or _hash(event, request_id) != expected:
                raise Contradiction(f"Event {seq} of its run is missing or was changed.")
            yield event
            seq, expected = seq - 1, event.previous_hash


def _since_asked(current: Change, approval: Approval) -> tuple[Event, list[Event]]:
    """The event that put this question before people, and everything after it, oldest first."""
    since: list[Event] = []
    for event in _backwards(current):
        if event.kind == "approval.asked" and event.fields.get("approval") == approval.pk:
            return event, since[::-1]
        since.append(event)
    raise Contradiction("No event puts this question before people.")


def _is_as_asked(approval: Approval, asked: Event) -> None:
    if names := not_as_asked(approval, asked.fields):
        raise Contradiction(f"Its {' and '.join(names)} is not what people were asked about.")
    if approval.created_at != asked.at or approval.step.seq != asked.fields["step"]:
        raise Contradiction("It was not asked then, or not about this call.")


def _about(approval: Approval, events: list[Event]) -> list[Event]:
    """Events of this question: votes, and how it ended."""
    return [
        event
        for event in events
        if event.kind.startswith("approval.") and event.fields.get("approval") == approval.pk
    ]


def _votes_fit(approval: Approval, since: list[Event]) -> list[Said]:
    """The votes that events record; raises Contradiction when the rows are not exactly these."""
    cast = [event for event in _about(approval, since) if event.kind == "approval.vote"]
    recorded = sorted(_vote_facts(event.at, event.fields) for event in cast)
    votes = list(approval.votes.all())
    if sorted(map(_row_facts, votes)) != recorded or {vote.revision for vote in votes} - {approval.revision}:
        raise Contradiction("Its votes are not those that were recorded.")
    return [event.fields for event in cast]


def _vote_facts(at: datetime, said: Said) -> tuple[Any, ...]:
    seconds = said.get("seconds_on_card")
    return (at, said["voter"], said["verdict"], said["digest"], said["reason"], str(seconds))


def _row_facts(vote: Vote) -> tuple[Any, ...]:
    return (vote.at, vote.voter_id, vote.verdict, vote.digest, vote.reason, str(vote.seconds_on_card))


def _is_approved(approval: Approval, asked: Event, since: list[Event]) -> None:
    """By as many different people as were asked for, each of whom could say yes, and by nothing since."""
    demanded = asked.fields
    yes: set[int] = set()
    for vote in _votes_fit(approval, since):
        if vote["verdict"] != Verdict.APPROVE or vote["digest"] != approval.digest:
            raise Contradiction("Somebody rejected it, or voted on something else.")
        if vote["self_approval"] and not approval.self_approval:
            raise Contradiction("Whoever started the run voted, and somebody else was asked for.")
        if approval.roles and not set(vote.get("groups", ())) & set(approval.roles):
            raise Contradiction("Somebody voted who was in none of the groups that were asked.")
        if why_no_yes(
            changed_it=vote["voter"] == approval.edited_by_id,
            quorum=approval.quorum,
            self_approval=approval.self_approval,
            rule=approval.rule,
        ):
            raise Contradiction("It was approved by the person who changed it.")
        yes.add(vote["voter"])
    if len(yes) < demanded["quorum"]:
        raise Contradiction(f"{len(yes)} of {demanded['quorum']} people approved it.")
    ends = [event for event in _about(approval, since) if event.kind not in EDITS | {"approval.vote"}]
    if not ends or ends[-1].kind != "approval.approved":
        raise Contradiction("No event says that it is approved.")
    said = ends[-1].fields
    times = {"not_before": approval.not_before, "execute_by": approval.execute_by}
    for name, moment in times.items():
        recorded = said.get(name)
        if name == "execute_by" and recorded is None:  # versions before did not record it
            continue
        if recorded != (moment.isoformat() if moment else None):
            raise Contradiction(f"Its {name} is not the one that was recorded.")
    if approval.decided_at != ends[-1].at:
        raise Contradiction("It was not decided when it says.")


def _did_not_start(step: Step, since: list[Event]) -> datetime | None:
    """It began as often as its attempts say, and did not end: when it first began, None for never."""
    about = [event for event in since if event.fields.get("step") == step.seq]
    started = [event for event in about if event.kind == "call.started"]
    again = [event for event in about if event.kind == "call.restarted"]
    if len(started) != step.attempt - 1 or len(again) != step.attempt - 1:
        raise Contradiction(f"It was started {len(started)} times before, not {step.attempt - 1}.")
    if any(event.kind in SETTLED for event in about):
        raise Contradiction("This call has ended already.")
    return started[0].at if started else None
