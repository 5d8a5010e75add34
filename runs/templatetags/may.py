"""What the reader of a page may do, and the question before them."""

from __future__ import annotations

from django import template
from django.contrib.auth.models import User
from django.utils import timezone

from runs.access import Permission, may_change, may_change_policy, may_decide, may_start, may_undo, may_vote
from runs.forms import DecisionForm
from runs.reading.asks import Ask
from runs.reading.queue import Card
from runs.reading.run_page import RunPageView
from runs.seen import card_seen

register = template.Library()


@register.simple_tag
def permission_to_start(user: User) -> Permission:
    """Whether this person may start and steer runs, or the sentence why not."""
    return may_start(user)


@register.simple_tag
def permission_to_decide(user: User) -> Permission:
    """Whether this person may say what became of a call, or the sentence why not."""
    return may_decide(user)


@register.simple_tag
def permission_to_change_policy(user: User) -> Permission:
    """Whether this person may write rules and give grants, or the sentence why not."""
    return may_change_policy(user)


@register.simple_tag
def permission_to_vote(user: User, ask: Ask) -> Permission:
    """Whether this person may vote on this approval now, or the sentence why not."""
    return may_vote(user, ask)


@register.simple_tag
def permission_to_change(user: User, ask: Ask) -> Permission:
    """Whether this person may change the arguments of this call now, or the sentence why not."""
    return may_change(user, ask)


@register.simple_tag
def permission_to_undo(user: User, ask: Ask) -> Permission:
    """Whether this person may take this approval back now, or the sentence why not."""
    return may_undo(user, ask)


@register.simple_tag
def seen(user: User, ask: Ask, form: DecisionForm | None = None) -> str:
    """For the form of a vote: since when this person has had this question before them, signed.

    A form that comes back with a problem keeps the time of its first page.
    """
    return card_seen(user, ask, timezone.now(), earlier=form.data.get("seen", "") if form else "")


@register.simple_tag
def card_of(page: RunPageView, ask: Ask) -> Card | None:
    """All there is to know about this open question of the run."""
    return page.card(ask)
