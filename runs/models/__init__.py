"""Tables, and facts of one row. Anything that spans tables is an action or a reading."""

from runs.models.access import SignInLink, token_hash
from runs.models.approval import Approval, ApprovalState, Verdict, Vote
from runs.models.event import Event, event_hash
from runs.models.outcome import Finding, FoundBy, Resolution, Says, WhatBecame
from runs.models.run import ENDED, Run, RunStatus
from runs.models.step import GOOD_ENDS, SETTLED, Step, StepKind, StepStatus

__all__ = [
    "ENDED",
    "GOOD_ENDS",
    "SETTLED",
    "Approval",
    "ApprovalState",
    "Event",
    "Finding",
    "FoundBy",
    "Resolution",
    "Run",
    "RunStatus",
    "Says",
    "SignInLink",
    "Step",
    "StepKind",
    "StepStatus",
    "Verdict",
    "Vote",
    "WhatBecame",
    "event_hash",
    "token_hash",
]
