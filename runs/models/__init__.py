"""Tables, and facts of one row. Anything that spans tables is an action or a reading."""

from runs.models.access import SignInLink, token_hash
from runs.models.approval import Approval, ApprovalState, Verdict, Vote
from runs.models.event import Event, event_hash
from runs.models.notification import (
    UNDER_WAY,
    ChannelKind,
    DeliveryState,
    NoticeKind,
    NotificationChannel,
    NotificationDelivery,
)
from runs.models.run import ENDED, Run, RunStatus
from runs.models.step import GOOD_ENDS, SETTLED, Step, StepKind, StepStatus
from runs.models.worker import WorkerProcess, silent_since

__all__ = [
    "ENDED",
    "GOOD_ENDS",
    "SETTLED",
    "UNDER_WAY",
    "Approval",
    "ApprovalState",
    "ChannelKind",
    "DeliveryState",
    "Event",
    "NoticeKind",
    "NotificationChannel",
    "NotificationDelivery",
    "Run",
    "RunStatus",
    "SignInLink",
    "Step",
    "StepKind",
    "StepStatus",
    "Verdict",
    "Vote",
    "WorkerProcess",
    "event_hash",
    "silent_since",
    "token_hash",
]
