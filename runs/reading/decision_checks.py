"""Whether rows of decisions say what the events of their run record: approvals, votes, edits, outcomes.

Rows are what pages, receipts and exports show. Each column is compared with an event or derived from one;
what no event bears is listed in docs/approvals.md with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from runs.models import Approval, ApprovalState, Edit, EditState, Event, FoundBy, RecheckState, Run, Vote
from runs.models.proof import not_as_asked, sha256

Said = dict[str, Any]
VOTE = "approval.vote"
EDITED = "approval.edit_"
FINDINGS = {"call.probed": FoundBy.PROBE, "call.answered_late": FoundBy.LATE}
LOOKS = {"call.rechecked", "call.relapsed"}


def decisions_fit(run: Run, approvals: Sequence[Approval], events: Sequence[Event]) -> Iterator[str]:
    """Every row of a decision about this run that is not as its events record it."""
    for approval in approvals:
        about = [event for event in events if _is_about(event, approval)]
        asked = [event for event in about if event.kind == "approval.asked"]
        if not asked:
            yield f"approval {approval.pk} was asked by no event"
            continue
        yield from _is_as_asked(approval, asked[0])
        yield from _votes_fit(approval, [event for event in about if event.kind == VOTE])
        yield from _ended(approval, about)
        yield from _started(approval, events)
    yield from _edits_fit(run, events)
    yield from _outcomes_fit(run, events)
    yield from _rechecks_fit(run, events)
    yield from _grants_fit(run, events)


def _is_about(event: Event, approval: Approval) -> bool:
    return event.kind.startswith("approval.") and event.fields.get("approval") == approval.pk


def _is_end(event: Event) -> bool:
    return event.kind not in {"approval.asked", VOTE} and not event.kind.startswith(EDITED)


def _differ(what: str, pairs: dict[str, tuple[Any, Any]]) -> Iterator[str]:
    """One sentence for each column whose value is not the recorded one."""
    for name, (stored, recorded) in pairs.items():
        if stored != recorded:
            yield f"{name} of {what} is {str(stored)[:80]!r}, its event says {str(recorded)[:80]!r}"


def _is_as_asked(approval: Approval, asked: Event) -> Iterator[str]:
    for name in not_as_asked(approval, asked.fields):
        yield f"{name} of approval {approval.pk} is not what people were asked"
    what = f"approval {approval.pk}"
    yield from _differ(what, {"created_at": (approval.created_at, asked.at)})
    yield from _differ(what, {"step": (approval.step.seq, asked.fields["step"])})


def _votes_fit(approval: Approval, cast: Sequence[Event]) -> Iterator[str]:
    votes = {vote.voter_id: vote for vote in approval.votes.all()}
    recorded = {event.fields["voter"]: event for event in cast}
    for voter in sorted(votes.keys() ^ recorded.keys()):
        which = "by no event" if voter in votes else "and its row is gone"
        yield f"a vote of person {voter} on approval {approval.pk} was recorded {which}"
    for voter in sorted(votes.keys() & recorded.keys()):
        yield from _vote_fits(votes[voter], recorded[voter], approval)


def _vote_fits(vote: Vote, cast: Event, approval: Approval) -> Iterator[str]:
    said = cast.fields
    names = ("verdict", "digest", "reason", "seconds_on_card")
    pairs = {name: (getattr(vote, name), said.get(name)) for name in names}
    pairs |= {"at": (vote.at, cast.at), "revision": (vote.revision, approval.revision)}
    yield from _differ(f"the vote of person {vote.voter_id} on approval {approval.pk}", pairs)


def _ended(approval: Approval, about: Sequence[Event]) -> Iterator[str]:
    """Its state and times are those of the events that ended it, the last one of which counts."""
    what, ends = f"approval {approval.pk}", [event for event in about if _is_end(event)]
    if not ends:
        nothing = {name: (getattr(approval, name), None) for name in ("decided_at", "ended_at", "execute_by")}
        yield from _differ(what, {"state": (approval.state, ApprovalState.PENDING)} | nothing)
        yield from _differ(what, {name: (getattr(approval, name), "") for name in ("ended_by", "ended_why")})
        return
    first, last = ends[0], ends[-1]
    state = last.kind.removeprefix("approval.").replace("contradicted", ApprovalState.INVALIDATED)
    yield from _differ(what, {"state": (approval.state, state)})
    if first.kind != "approval.contradicted":
        yield from _differ(what, {"decided_at": (approval.decided_at, first.at)})
    for name in ("not_before", "execute_by"):
        recorded = first.fields.get(name)
        known = name in first.fields or name == "not_before" or first.kind != "approval.approved"
        if known:
            yield from _differ(what, {name: (_iso(getattr(approval, name)), recorded)})
    yield from _differ(what, _how_it_ended(approval, first, last, about))


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _how_it_ended(
    approval: Approval, first: Event, last: Event, about: Sequence[Event]
) -> dict[str, tuple[Any, Any]]:
    """Who or what ended it otherwise than by votes and deadlines, when and why."""
    by_itself = {"approval.approved", "approval.rejected", "approval.cancelled"}
    recorded: tuple[Any, ...]
    if last.kind in by_itself or (last is first and last.kind == "approval.expired"):
        recorded = (None, "", "")
    elif last.kind == "approval.superseded":
        asked = (event for event in about if event.kind == "approval.edit_asked")
        edits = [event for event in asked if event.fields["edit"] == last.fields.get("edit")]
        recorded = (last.at, *(edits[0].actor, edits[0].fields["reason"])) if edits else (last.at, None, None)
    elif last.fields["reason"] == "drift":
        changed = (f"{one['what']} was {one['was']}, is now {one['now']}" for one in last.fields["changed"])
        why = f"Changed since it was approved: {'; '.join(changed)}."
        recorded = (last.at, "the check before the start", why)
    else:
        is_by_a_person = last.kind == "approval.revoked" or (
            last is first and last.kind == "approval.invalidated"
        )
        recorded = (last.at, last.actor if is_by_a_person else "", last.fields["reason"])
    stored = (approval.ended_at, approval.ended_by, approval.ended_why)
    return dict(zip(("ended_at", "ended_by", "ended_why"), zip(stored, recorded, strict=True), strict=True))


def _started(approval: Approval, events: Sequence[Event]) -> Iterator[str]:
    """It was used with the first start of its call after it was approved."""
    approved = [e.seq for e in events if e.kind == "approval.approved" and _is_about(e, approval)]
    starts = [
        event
        for event in events
        if event.kind == "call.started" and event.fields["step"] == approval.step.seq
    ]
    used = [event.at for event in starts if approved and event.seq > approved[0]]
    superseded = approval.state != ApprovalState.APPROVED
    recorded = used[0] if used and not superseded else None
    yield from _differ(f"approval {approval.pk}", {"redeemed_at": (approval.redeemed_at, recorded)})


def _edits_fit(run: Run, events: Sequence[Event]) -> Iterator[str]:
    asked = {e.fields["edit"]: e for e in events if e.kind == "approval.edit_asked"}
    answers = {
        e.fields["edit"]: e for e in events if e.kind.startswith(EDITED) and e.kind != "approval.edit_asked"
    }
    edits = {edit.pk: edit for edit in run.edits.all()}
    for pk in sorted(edits.keys() ^ asked.keys()):
        yield f"edit {pk} was asked for {'by no event' if pk in edits else 'and its row is gone'}"
    for pk in sorted(edits.keys() & asked.keys()):
        yield from _differ(f"edit {pk}", _edit_facts(edits[pk], asked[pk], answers.get(pk)))


def _edit_facts(edit: Edit, asked: Event, answer: Event | None) -> dict[str, tuple[Any, Any]]:
    said = asked.fields
    state = answer.kind.removeprefix(EDITED) if answer else EditState.ASKED
    return {
        "approval": (edit.approval_id, said["approval"]),
        "by": (edit.by_id, said["editor"]),
        "arguments": (edit.arguments, said["arguments"]),
        "reason": (edit.reason, said["reason"]),
        "at": (edit.at, asked.at),
        "state": (edit.state, state),
        "answer": (edit.answer, answer.fields.get("why", "") if answer else ""),
        "answered_at": (edit.answered_at, answer.at if answer else None),
    }


def _outcomes_fit(run: Run, events: Sequence[Event]) -> Iterator[str]:
    """What people and probes said about calls whose outcome was unknown."""
    said = {event.fields["step"]: event for event in events if event.kind == "call.resolved"}
    for resolution in run.resolutions.select_related("step", "by"):
        event = said.pop(resolution.step.seq, None)
        if event is None:
            continue  # another check says so
        pairs = {
            "verdict": (resolution.verdict, event.fields["verdict"]),
            "evidence": (resolution.evidence, event.fields["evidence"]),
            "by": (resolution.by.get_username(), event.actor),
            "at": (resolution.at, event.at),
        }
        yield from _differ(f"what became of call {resolution.step.seq}", pairs)
    for seq in said:
        yield f"what a person said became of call {seq} is gone"
    recorded = [event for event in events if event.kind in FINDINGS]
    findings = list(run.findings.select_related("step").order_by("pk"))
    if len(findings) != len(recorded):
        yield f"{len(recorded)} findings were recorded, there are {len(findings)}"
    for finding, event in zip(findings, recorded, strict=False):
        pairs = {
            name: (getattr(finding, name), event.fields[name]) for name in ("attempt", "says", "evidence")
        }
        pairs |= {"step": (finding.step.seq, event.fields["step"]), "at": (finding.at, event.at)}
        pairs |= {
            "found_by": (finding.found_by, FINDINGS[event.kind]),
            "worker": (finding.worker, event.actor),
        }
        digest = sha256(finding.result) if finding.result else ""
        pairs |= {"result": (digest, event.fields["result_sha256"])}
        yield from _differ(f"a finding about call {finding.step.seq}", pairs)


def _rechecks_fit(run: Run, events: Sequence[Event]) -> Iterator[str]:
    """What was seen when a change was looked at again, and who took care of a relapse."""
    looks = {(e.fields["step"], e.at): e for e in events if e.kind in LOOKS}
    answers = {(e.fields["step"], e.at): e for e in events if e.kind == "call.relapse_answered"}
    relapsed = {e.fields["step"] for e in events if e.kind == "call.relapsed"}
    for recheck in run.rechecks.select_related("step", "follow_up"):
        what, seq = f"the recheck of call {recheck.step.seq}", recheck.step.seq
        if recheck.state in {RecheckState.DUE, RecheckState.DROPPED}:
            answers_none = (recheck.answered_by, recheck.answered_at, recheck.follow_up) == ("", None, None)
            if not answers_none:
                yield f"{what} was answered, and nothing came back"
            if (recheck.state == RecheckState.DROPPED) != (seq in relapsed):
                yield f"{what} is {recheck.state}, which its events do not say"
            continue
        event = looks.pop((seq, recheck.checked_at), None) if recheck.checked_at else None
        if event is None:
            yield f"{what} was recorded by no event at {recheck.checked_at}"
            continue
        state = event.fields.get("status", RecheckState.RELAPSED)
        pairs = {
            "state": (recheck.state, state),
            "observed": (recheck.observed, event.fields["observed"]),
        }
        answer = answers.pop((seq, recheck.answered_at), None) if recheck.answered_at else None
        follow_up = str(recheck.follow_up.request_id) if recheck.follow_up else ""
        pairs["answered_by"] = (recheck.answered_by, answer.actor if answer else "")
        pairs["follow_up"] = (follow_up, answer.fields["run"] if answer else "")
        yield from _differ(what, pairs)
    for seq, _ in [*looks, *answers]:
        yield f"what was seen of call {seq} later, or who took care of it, is not as recorded"


def _grants_fit(run: Run, events: Sequence[Event]) -> Iterator[str]:
    used = {event.fields["step"]: event for event in events if event.kind == "grant.used"}
    uses = {use.step.seq: use for use in run.grant_uses.select_related("step")}
    for seq in sorted(uses.keys() ^ used.keys()):
        how = "by no event" if seq in uses else "and is gone"
        yield f"the use of a grant by call {seq} was recorded {how}"
    for seq in sorted(uses.keys() & used.keys()):
        use, said = uses[seq], used[seq].fields
        pairs = {"grant": (use.grant_id, said["grant"]), "number": (use.number, said["number"])}
        yield from _differ(f"the use of a grant by call {seq}", pairs | {"at": (use.at, used[seq].at)})
