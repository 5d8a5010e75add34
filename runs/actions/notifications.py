"""Telling people: what is written beside an approval's event, for each channel that wants it.

The messages are rows of the same transaction, so none is lost and none tells of what was not committed.
Workers send them, see `runs.actions.deliveries`.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from runs.actions.change import Change
from runs.models import (
    Approval,
    ApprovalState,
    DeliveryState,
    NoticeKind,
    NotificationChannel,
    NotificationDelivery,
    Step,
)
from tools import redaction

MOST_HEADLINE = 300
BY_PEOPLE = frozenset({ApprovalState.APPROVED, ApprovalState.REJECTED, ApprovalState.REVOKED})
NOTICE_OF = {
    ApprovalState.PENDING: NoticeKind.ASKED,
    ApprovalState.APPROVED: NoticeKind.DECIDED,
    ApprovalState.REJECTED: NoticeKind.DECIDED,
    ApprovalState.EXPIRED: NoticeKind.EXPIRED,
    ApprovalState.CANCELLED: NoticeKind.WITHDRAWN,
    ApprovalState.INVALIDATED: NoticeKind.WITHDRAWN,
    ApprovalState.SUPERSEDED: NoticeKind.WITHDRAWN,
    ApprovalState.REVOKED: NoticeKind.WITHDRAWN,
}


def notify(current: Change, approval: Approval) -> None:
    """Tell people of the state that this approval has by now; call it where its event is recorded.

    One query and nothing else when there is no channel. An approval that is asked also gets its reminder,
    to be sent before the deadline; any other state takes that back.
    """
    channels = list(NotificationChannel.objects.filter(enabled=True))
    if not channels:
        return
    notice = NOTICE_OF[ApprovalState(approval.state)]
    if notice != NoticeKind.ASKED:
        approval.deliveries.filter(notice=NoticeKind.EXPIRING, state=DeliveryState.WAITING).update(
            state=DeliveryState.DROPPED, error=f"It was {approval.state} before.", ended_at=current.now
        )
    _write(current, channels, approval, notice, approval.state)
    if notice == NoticeKind.ASKED:
        _write(current, channels, approval, NoticeKind.EXPIRING, approval.state)


def notify_end(current: Change, step: Step) -> None:
    """Tell people how a call ended that they had approved; call it where its end is recorded."""
    if step.effect == "read":  # nobody is asked about a read
        return
    channels = list(NotificationChannel.objects.filter(enabled=True))
    if not channels:
        return
    approval = step.approvals.filter(redeemed_at__isnull=False).order_by("-revision").first()
    if approval is not None:
        _write(current, channels, approval, NoticeKind.ENDED, step.status)


def notify_relapse(current: Change, step: Step) -> None:
    """Tell people that what an approved call had cured came back."""
    channels = list(NotificationChannel.objects.filter(enabled=True))
    approval = step.approvals.filter(redeemed_at__isnull=False).order_by("-revision").first()
    if channels and approval is not None:
        _write(current, channels, approval, NoticeKind.RELAPSED, "relapsed")


def reminder_due(channel: NotificationChannel, approval: Approval) -> datetime:
    """When this channel reminds of this approval; never before it was asked."""
    whole = approval.expires_at - approval.created_at
    if channel.remind_unit == "percent":
        left = whole * (channel.remind_at / 100)
    else:
        left = timedelta(minutes=channel.remind_at)
    return max(approval.created_at, approval.expires_at - left)


def facts_of(approval: Approval, current: Change, outcome: str) -> dict[str, Any]:
    """What is said of an approval: our own words and plain facts.

    No argument, no result, no text of the agent and no reason of a person is among them. The headline is
    written by the tool; secrets in it are masked once more.
    """
    run, step = current.run, approval.step
    headline = str(approval.card.get("headline") or f"Run {step.name}")
    return {
        "approval": approval.pk,
        "outcome": outcome,
        "headline": redaction.clean(" ".join(headline.split())[:MOST_HEADLINE], Counter()),
        "environment": approval.environment,
        "tool": step.name,
        "reversible": bool(approval.card.get("reversible")),
        "quorum": approval.quorum,
        "run": run.pk,
        "request_id": str(run.request_id),
        "step": step.seq,
        "agent": run.agent,
        "simulated": run.simulated,
        "asked_at": approval.created_at.isoformat(),
        "expires_at": approval.expires_at.isoformat(),
        "by": current.actor if outcome in BY_PEOPLE else "",
        "at": current.now.isoformat(),
    }


def _write(
    current: Change,
    channels: list[NotificationChannel],
    approval: Approval,
    notice: NoticeKind,
    outcome: str,
) -> None:
    wanting = [c for c in channels if c.wants(notice, current.run.agent, approval.environment)]
    if not wanting:
        return
    facts = json.dumps(facts_of(approval, current, outcome), ensure_ascii=False)
    NotificationDelivery.objects.bulk_create(
        NotificationDelivery(
            channel=channel,
            channel_name=channel.name,
            run=current.run,
            approval=approval,
            notice=notice,
            facts=facts,
            next_at=reminder_due(channel, approval) if notice == NoticeKind.EXPIRING else current.now,
            created_at=current.now,
        )
        for channel in wanting
    )
