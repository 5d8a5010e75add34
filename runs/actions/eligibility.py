"""Who may vote on a question: asked inside the transaction that records the vote."""

from __future__ import annotations

from django.contrib.auth.models import User

from runs.models import Approval, Run, Verdict
from runs.models.eligible import why_not


def groups_asked(approval: Approval, voter: User) -> dict[str, list[str]]:
    """For the event of a vote: those of the groups asked that this person is in now."""
    if not approval.roles:
        return {}
    return {"groups": sorted(voter.groups.filter(name__in=approval.roles).values_list("name", flat=True))}


def who_left(approval: Approval, run: Run) -> str:
    """Whose yes this approval rests on who could not give it any more, as a sentence; "" when nobody's."""
    yes = approval.votes.filter(revision=approval.revision, verdict=Verdict.APPROVE)
    for vote in yes.select_related("voter"):
        if not vote.voter.is_active:
            return f"The account of {vote.voter.get_username()}, who approved it, was closed since."
        if why_may_not_vote(approval, run, vote.voter):
            return f"{vote.voter.get_username()}, who approved it, may not decide on it any more."
    return ""


def why_may_not_vote(approval: Approval, run: Run, voter: User) -> str:
    """A sentence for who may not decide on this approval; "" for who may.

    Read anew from the database: what a page knew of this person may be old.
    """
    person = User.objects.filter(pk=voter.pk).first()
    if person is None or not person.is_active or not person.has_perm("runs.decide"):
        return f"{voter.get_username()} may look but not decide. Ask for the permission “decide”."
    return why_not(
        person.get_username(),
        roles=approval.roles,
        groups=list(person.groups.values_list("name", flat=True)),
        started_it=run.created_by_id == person.pk,
        self_approval=approval.self_approval,
        rule=approval.rule,
    )
