"""Who may decide on a question, as one pure function: the vote and the page say the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def why_not(
    name: str,
    *,
    roles: Sequence[str],
    groups: Collection[str],
    started_it: bool,
    self_approval: bool,
    rule: str,
) -> str:
    """Why this person may not decide, as a sentence for them; "" when they may.

    `groups` are theirs; one of `roles` is needed when there are any. Being an administrator is no role.
    """
    if started_it and not self_approval:
        return (
            f"{name} started this run, and the rule {rule} wants somebody else to decide. "
            "Ask a colleague; cancelling the run is still possible."
        )
    if roles and not set(roles) & set(groups):
        return (
            f"The rule {rule} leaves this to {' or '.join(roles)}, and {name} is in none of these groups. "
            "Ask one of them, or an administrator to be added."
        )
    return ""


def why_no_yes(*, changed_it: bool, quorum: int, self_approval: bool, rule: str) -> str:
    """Why somebody may only say no, as a sentence for them; "" when they may say yes, too.

    Whoever changed a call has proposed it: under a rule that asks for several people, or for somebody else
    than who is behind it, a yes has to come from others.
    """
    if not changed_it or (quorum == 1 and self_approval):
        return ""
    if quorum > 1:
        return f"You changed this call, and the rule {rule} asks for {quorum} people: they have to be others."
    return f"You changed this call, and the rule {rule} wants somebody else to decide."
