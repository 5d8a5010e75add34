"""Tables, and facts of one row. Anything that spans tables is an action or a reading."""

from runs.models.access import SignInLink, token_hash
from runs.models.approval import Approval, ApprovalState, Verdict, Vote
from runs.models.event import Event, event_hash
from runs.models.run import CONTINUED, ENDED, Run, RunStatus
from runs.models.step import GOOD_ENDS, SETTLED, Step, StepKind, StepStatus

__all__ = [
    "CONTINUED",
    "ENDED",
    "GOOD_ENDS",
    "SETTLED",
    "Approval",
    "ApprovalState",
    "Event",
    "Run",
    "RunStatus",
    "SignInLink",
    "Step",
    "StepKind",
    "StepStatus",
    "Verdict",
    "Vote",
    "event_hash",
    "token_hash",
]
