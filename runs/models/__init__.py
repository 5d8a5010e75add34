"""Tables, and facts of one row. Anything that spans tables is an action or a reading."""

from runs.models.access import SignInLink, token_hash
from runs.models.approval import COOLING_OFF, Approval, ApprovalState, Origin, Verdict, Vote
from runs.models.budget import (
    AtLimit,
    Budget,
    BudgetChange,
    BudgetHold,
    BudgetNotice,
    Period,
    Scope,
    Spending,
)
from runs.models.charge import Charge, Entry, Price
from runs.models.cost_sum import CostAcross, CostSeal, CostSum, Dimension
from runs.models.edit import Edit, EditState
from runs.models.event import Event, event_hash
from runs.models.notification import (
    UNDER_WAY,
    ChannelKind,
    DeliveryState,
    NoticeKind,
    NotificationChannel,
    NotificationDelivery,
)
from runs.models.outcome import Finding, FoundBy, Resolution, Says, WhatBecame
from runs.models.override import CONTEXTS, PriceChange, PriceOverride, WhatHappened
from runs.models.policy import (
    GrantUse,
    PolicyBacktest,
    PolicyChange,
    PolicyHead,
    PolicyRule,
    RuleKind,
    WhatChanged,
)
from runs.models.recheck import Recheck, RecheckState
from runs.models.repricing import LineState, Repricing, RepricingLine, RepricingState
from runs.models.run import CONTINUED, ENDED, Run, RunStatus
from runs.models.search import RunNote, RunTag, SavedSearch, SearchState
from runs.models.statement import Statement
from runs.models.step import GOOD_ENDS, SETTLED, Step, StepKind, StepStatus
from runs.models.summary import CostSummary, Every
from runs.models.worker import WorkerProcess, silent_since

__all__ = [
    "CONTEXTS",
    "CONTINUED",
    "COOLING_OFF",
    "ENDED",
    "GOOD_ENDS",
    "SETTLED",
    "UNDER_WAY",
    "Approval",
    "ApprovalState",
    "AtLimit",
    "Budget",
    "BudgetChange",
    "BudgetHold",
    "BudgetNotice",
    "ChannelKind",
    "Charge",
    "CostAcross",
    "CostSeal",
    "CostSum",
    "CostSummary",
    "DeliveryState",
    "Dimension",
    "Edit",
    "EditState",
    "Entry",
    "Event",
    "Every",
    "Finding",
    "FoundBy",
    "GrantUse",
    "LineState",
    "NoticeKind",
    "NotificationChannel",
    "NotificationDelivery",
    "Origin",
    "Period",
    "PolicyBacktest",
    "PolicyChange",
    "PolicyHead",
    "PolicyRule",
    "Price",
    "PriceChange",
    "PriceOverride",
    "Recheck",
    "RecheckState",
    "Repricing",
    "RepricingLine",
    "RepricingState",
    "Resolution",
    "RuleKind",
    "Run",
    "RunNote",
    "RunStatus",
    "RunTag",
    "SavedSearch",
    "Says",
    "Scope",
    "SearchState",
    "SignInLink",
    "Spending",
    "Statement",
    "Step",
    "StepKind",
    "StepStatus",
    "Verdict",
    "Vote",
    "WhatBecame",
    "WhatChanged",
    "WhatHappened",
    "WorkerProcess",
    "event_hash",
    "silent_since",
    "token_hash",
]
