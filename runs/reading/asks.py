"""Approvals as data for their cards: on the run page, in the queue, in the history."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Prefetch, QuerySet

from runs.models import Approval, ApprovalState, Verdict, Vote
from runs.models.eligible import why_no_yes
from runs.reading import rule_words
from runs.reading.timescale import percent_text
from runs.reading.words import span


@dataclass(frozen=True)
class Ballot:
    """One vote that counts for the present revision."""

    voter: str
    verdict: str
    reason: str
    at: datetime
    after_seconds: float


@dataclass(frozen=True)
class Ask:
    """One approval, its card and its votes. The headline is written by the tool, never by the model."""

    pk: int
    step_seq: int
    tool: str
    state: str
    revision: int
    digest: str
    arguments: str
    environment: str
    rule: str
    rule_reason: str
    quorum: int
    roles: tuple[str, ...]
    rule_change: int | None  # the version of the rule, when people wrote it
    self_approval: bool
    cooling_off_seconds: float
    started_by_viewer: bool  # known where it matters: when whoever started the run may not decide
    card: dict[str, Any]
    ballots: tuple[Ballot, ...]
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    execute_within_seconds: int
    origin: str
    edited_by: str
    differences: tuple[tuple[str, str, str], ...]  # against the revision before: what, was, now
    not_before: datetime | None
    redeemed_at: datetime | None
    ended_at: datetime | None  # otherwise than by votes and deadlines
    ended_by: str
    ended_why: str
    edited_by_viewer: bool
    voted_by_viewer: bool
    past_deadline: bool = field(compare=False)
    left_share: str = field(compare=False)  # of the time to decide, as an SVG width

    @property
    def is_open(self) -> bool:
        """A decision is still possible."""
        return self.state == ApprovalState.PENDING and not self.past_deadline

    @property
    def may_be_revoked(self) -> bool:
        """Approved, and not started as far as this row says: it can be taken back."""
        return self.state == ApprovalState.APPROVED and self.redeemed_at is None

    @property
    def cools_until(self) -> datetime | None:
        """Until when everybody who decides can undo it before it starts; None when it does not wait."""
        return self.not_before if self.may_be_revoked else None

    @property
    def why_no_approval(self) -> str:
        """Why this viewer may say no and not yes, or ""."""
        return why_no_yes(
            changed_it=self.edited_by_viewer,
            quorum=self.quorum,
            self_approval=self.self_approval,
            rule=self.rule,
        )

    @property
    def shown_state(self) -> str:
        """The state as a person should read it: past the deadline is expired, swept or not."""
        return "expired" if self.state == ApprovalState.PENDING and self.past_deadline else self.state

    @property
    def headline(self) -> str:
        return str(self.card.get("headline") or f"Run {self.tool}")

    @property
    def button(self) -> str:
        """What the approve button says: it names the act."""
        return f"Approve this {self.card.get('action') or 'call'}"

    @property
    def reversible(self) -> bool:
        return bool(self.card.get("reversible"))

    @property
    def confirm_word(self) -> str:
        """What has to be typed before an irreversible act; empty when nothing has to."""
        return "" if self.reversible else str(self.card.get("object") or "")

    @property
    def approvals(self) -> int:
        return sum(1 for ballot in self.ballots if ballot.verdict == Verdict.APPROVE)

    @property
    def missing(self) -> int:
        return max(0, self.quorum - self.approvals)

    @property
    def slots(self) -> list[bool]:
        """One entry per vote that is needed, True for those given."""
        return [n < self.approvals for n in range(self.quorum)]

    @property
    def last_ballot(self) -> Ballot | None:
        return self.ballots[-1] if self.ballots else None

    @property
    def who_decided(self) -> str:
        if self.shown_state == ApprovalState.REVOKED:
            return f"Revoked by {self.ended_by}"
        last = self.last_ballot
        decided = last and self.shown_state in {ApprovalState.APPROVED, ApprovalState.REJECTED}
        return (
            f"{self.shown_state.capitalize()} by {last.voter}"
            if decided and last
            else self.shown_state.capitalize()
        )

    @property
    def deciders(self) -> str:
        """Who decides: "two of: On-call"."""
        return rule_words.people(self.quorum, self.roles)

    @property
    def votes_word(self) -> str:
        return f"{self.approvals} of {self.quorum} votes"

    @property
    def what_happens(self) -> str:
        """What a click on approve leads to."""
        if self.missing > 1:
            return f"{self.missing - 1} more needed after yours. It does not run before that."
        if self.cooling_off_seconds:
            wait = span(self.cooling_off_seconds)
            return f"It runs once, {wait} later, exactly as shown. Until then it can be undone."
        return f"It runs once, within {span(self.execute_within_seconds)}, exactly as shown."

    @property
    def waited_seconds(self) -> float | None:
        return (self.decided_at - self.created_at).total_seconds() if self.decided_at else None


def with_votes(approvals: QuerySet[Approval]) -> QuerySet[Approval]:
    """The same approvals with their votes and voters: two queries more, however many there are."""
    votes = Prefetch("votes", Vote.objects.select_related("voter"))
    return approvals.select_related("edited_by").prefetch_related(votes)


def ask_of(approval: Approval, *, step_seq: int, tool: str, viewer: User, now: datetime) -> Ask:
    """The card of an approval whose votes are loaded, as this viewer may see it."""
    votes = [vote for vote in approval.votes.all() if vote.revision == approval.revision]
    return Ask(
        pk=approval.pk,
        step_seq=step_seq,
        tool=tool,
        state=approval.state,
        revision=approval.revision,
        digest=approval.digest,
        arguments=approval.arguments,
        environment=approval.environment,
        rule=approval.rule,
        rule_reason=approval.rule_reason,
        quorum=approval.quorum,
        roles=tuple(approval.roles),
        rule_change=approval.rule_change,
        self_approval=approval.self_approval,
        cooling_off_seconds=approval.cools_off_seconds,
        started_by_viewer=not approval.self_approval and approval.run.created_by_id == viewer.pk,
        card=approval.card,
        ballots=tuple(_ballot(vote, approval) for vote in votes),
        created_at=approval.created_at,
        expires_at=approval.expires_at,
        decided_at=approval.decided_at,
        execute_within_seconds=approval.execute_within_seconds,
        origin=approval.origin,
        edited_by=approval.edited_by.get_username() if approval.edited_by else "",
        differences=tuple((one["what"], one["was"], one["now"]) for one in approval.changed),
        not_before=approval.not_before,
        redeemed_at=approval.redeemed_at,
        ended_at=approval.ended_at,
        ended_by=approval.ended_by,
        ended_why=approval.ended_why,
        edited_by_viewer=approval.edited_by_id == viewer.pk,
        voted_by_viewer=any(vote.voter_id == viewer.pk for vote in votes),
        past_deadline=approval.has_expired(now),
        left_share=_left_share(approval, now),
    )


def _left_share(approval: Approval, now: datetime) -> str:
    whole = (approval.expires_at - approval.created_at).total_seconds()
    left = max(0.0, (approval.expires_at - now).total_seconds())
    return percent_text(min(100.0, 100 * left / whole) if whole > 0 else 0.0)


def _ballot(vote: Vote, approval: Approval) -> Ballot:
    return Ballot(
        voter=vote.voter.get_username(),
        verdict=vote.verdict,
        reason=vote.reason,
        at=vote.at,
        after_seconds=(vote.at - approval.created_at).total_seconds(),
    )
