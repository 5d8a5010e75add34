"""Every write of agentops: one transaction, its events, one hint on commit."""

from runs.actions.approvals import decide, expire_approvals
from runs.actions.backtests import backtest_rule
from runs.actions.budgets import pause_at_budget, remove_budget, resume_after_budgets, set_budget
from runs.actions.calls import (
    Question,
    allow_call,
    ask_approval,
    finish_call,
    recover_call,
    refuse_call,
    start_call,
)
from runs.actions.change import Lease, driven, together, was_committed
from runs.actions.channels import (
    MayNotNotify,
    WantedChannel,
    find_channel,
    remove_channel,
    renew_secret,
    save_channel,
    send_again,
    send_test,
)
from runs.actions.charges import Charge
from runs.actions.claims import claim, claimable, end_run, hand_back, heartbeat, park, pause, still_held
from runs.actions.continuing import continuation_id, hand_over
from runs.actions.controls import (
    ASKED,
    PAUSE,
    RESTARTS,
    cancel_run,
    pause_run,
    resume_run,
    retry_run,
)
from runs.actions.cooling import WAITS as COOLING_OFF_WAITS
from runs.actions.cooling import cooling_off, cools_off
from runs.actions.cost_hours import count_again
from runs.actions.deliveries import (
    Outcome,
    claim_delivery,
    due_deliveries,
    forget_deliveries,
    record_delivery,
)
from runs.actions.edits import ask_again, ask_edit, deny_edit, forget_edits, open_revision, unchecked_edits
from runs.actions.errors import (
    ActionError,
    AlreadyDecided,
    AlreadyResolved,
    AlreadyStarted,
    ApprovalExpired,
    BeingChanged,
    BudgetUsedUp,
    DigestMismatch,
    InvalidEdit,
    InvalidQuestion,
    LeaseLost,
    LedgerMissing,
    MayNotDecide,
    NoModelConfigured,
    UnknownAgent,
    UnknownBudget,
    UnknownScenario,
)
from runs.actions.forking import ask_follow_up, fork_run
from runs.actions.groups import change_group
from runs.actions.labels import note_run, tag_run, untag_run
from runs.actions.ledger import may_have_budgets, open_ledgers
from runs.actions.outcomes import (
    Found,
    reconcile_call,
    record_late_result,
    resolve_outcome,
    tell_outcomes,
)
from runs.actions.permits import rules_now
from runs.actions.policies import (
    MayNotChangePolicy,
    NeedsBacktest,
    UnknownRule,
    disable_rule,
    discard_draft,
    draft_rule,
    enable_rule,
    find_rule,
)
from runs.actions.rechecks import claim_recheck, due_rechecks, record_recheck
from runs.actions.relapses import answer_relapse
from runs.actions.revising import canonical, differences
from runs.actions.revoking import revoke
from runs.actions.rule_contents import InvalidRule, WantedRule
from runs.actions.sealing import forget_sums, seal_hours
from runs.actions.searches import remove_search, save_search
from runs.actions.settling import Refusal, Result
from runs.actions.sign_in import make_sign_in_link, use_sign_in_link
from runs.actions.starting import checked_question, start_run
from runs.actions.turns import (
    CHARACTERS_PER_TOKEN,
    CompleteTurn,
    ProposedCall,
    add_note,
    estimate,
    fail_attempt,
    finish_turn,
    save_draft,
    start_attempt,
)
from runs.actions.workers import Identity, show_worker, worker_left

__all__ = [
    "ASKED",
    "CHARACTERS_PER_TOKEN",
    "COOLING_OFF_WAITS",
    "PAUSE",
    "RESTARTS",
    "ActionError",
    "AlreadyDecided",
    "AlreadyResolved",
    "AlreadyStarted",
    "ApprovalExpired",
    "BeingChanged",
    "BudgetUsedUp",
    "Charge",
    "CompleteTurn",
    "DigestMismatch",
    "Found",
    "Identity",
    "InvalidEdit",
    "InvalidQuestion",
    "InvalidRule",
    "Lease",
    "LeaseLost",
    "LedgerMissing",
    "MayNotChangePolicy",
    "MayNotDecide",
    "MayNotNotify",
    "NeedsBacktest",
    "NoModelConfigured",
    "Outcome",
    "ProposedCall",
    "Question",
    "Refusal",
    "Result",
    "UnknownAgent",
    "UnknownBudget",
    "UnknownRule",
    "UnknownScenario",
    "WantedChannel",
    "WantedRule",
    "add_note",
    "allow_call",
    "answer_relapse",
    "ask_again",
    "ask_approval",
    "ask_edit",
    "ask_follow_up",
    "backtest_rule",
    "cancel_run",
    "canonical",
    "change_group",
    "checked_question",
    "claim",
    "claim_delivery",
    "claim_recheck",
    "claimable",
    "continuation_id",
    "cooling_off",
    "cools_off",
    "count_again",
    "decide",
    "deny_edit",
    "differences",
    "disable_rule",
    "discard_draft",
    "draft_rule",
    "driven",
    "due_deliveries",
    "due_rechecks",
    "enable_rule",
    "end_run",
    "estimate",
    "expire_approvals",
    "fail_attempt",
    "find_channel",
    "find_rule",
    "finish_call",
    "finish_turn",
    "forget_deliveries",
    "forget_edits",
    "forget_sums",
    "fork_run",
    "hand_back",
    "hand_over",
    "heartbeat",
    "make_sign_in_link",
    "may_have_budgets",
    "note_run",
    "open_ledgers",
    "open_revision",
    "park",
    "pause",
    "pause_at_budget",
    "pause_run",
    "reconcile_call",
    "record_delivery",
    "record_late_result",
    "record_recheck",
    "recover_call",
    "refuse_call",
    "remove_budget",
    "remove_channel",
    "remove_search",
    "renew_secret",
    "resolve_outcome",
    "resume_after_budgets",
    "resume_run",
    "retry_run",
    "revoke",
    "rules_now",
    "save_channel",
    "save_draft",
    "save_search",
    "seal_hours",
    "send_again",
    "send_test",
    "set_budget",
    "show_worker",
    "start_attempt",
    "start_call",
    "start_run",
    "still_held",
    "tag_run",
    "tell_outcomes",
    "together",
    "unchecked_edits",
    "untag_run",
    "use_sign_in_link",
    "was_committed",
    "worker_left",
]
