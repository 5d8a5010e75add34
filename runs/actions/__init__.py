"""Every write of agentops: one transaction, its events, one hint on commit."""

from runs.actions.approvals import decide, expire_approvals
from runs.actions.calls import (
    Question,
    allow_call,
    ask_approval,
    canonical,
    finish_call,
    recover_call,
    refuse_call,
    start_call,
)
from runs.actions.change import Lease
from runs.actions.claims import claim, claimable, end_run, hand_back, heartbeat, park, pause, resume_run
from runs.actions.errors import (
    ActionError,
    AlreadyDecided,
    ApprovalExpired,
    DigestMismatch,
    InvalidQuestion,
    LeaseLost,
    MayNotDecide,
    NoModelConfigured,
    UnknownAgent,
    UnknownScenario,
)
from runs.actions.settling import Refusal, Result
from runs.actions.sign_in import make_sign_in_link, use_sign_in_link
from runs.actions.starting import checked_question, start_run
from runs.actions.turns import (
    Charge,
    CompleteTurn,
    ProposedCall,
    add_note,
    fail_attempt,
    finish_turn,
    save_draft,
    start_attempt,
)

__all__ = [
    "ActionError",
    "AlreadyDecided",
    "ApprovalExpired",
    "Charge",
    "CompleteTurn",
    "DigestMismatch",
    "InvalidQuestion",
    "Lease",
    "LeaseLost",
    "MayNotDecide",
    "NoModelConfigured",
    "ProposedCall",
    "Question",
    "Refusal",
    "Result",
    "UnknownAgent",
    "UnknownScenario",
    "add_note",
    "allow_call",
    "ask_approval",
    "canonical",
    "checked_question",
    "claim",
    "claimable",
    "decide",
    "end_run",
    "expire_approvals",
    "fail_attempt",
    "finish_call",
    "finish_turn",
    "hand_back",
    "heartbeat",
    "make_sign_in_link",
    "park",
    "pause",
    "recover_call",
    "refuse_call",
    "resume_run",
    "save_draft",
    "start_attempt",
    "start_call",
    "start_run",
    "use_sign_in_link",
]
