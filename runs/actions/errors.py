"""Why an action was refused. Each message is a sentence for the person who asked for it."""

from __future__ import annotations

from runs.models import Approval


class ActionError(Exception):
    """The action did not happen; nothing was written."""


class InvalidQuestion(ActionError):
    """The question is empty, too long or not text."""


class UnknownAgent(ActionError):
    """No agent of that name is installed."""


class UnknownScenario(ActionError):
    """No such incident can be simulated."""


class NoModelConfigured(ActionError):
    """Nothing could answer a run."""


class MayNotDecide(ActionError):
    """This person may not vote on this approval."""


class AlreadyDecided(ActionError):
    """Somebody else was first; `approval` is the row as it stands now."""

    def __init__(self, sentence: str, approval: Approval) -> None:
        super().__init__(sentence)
        self.approval = approval


class ApprovalExpired(AlreadyDecided):
    """The deadline passed; the call will not run."""


class AlreadyStarted(AlreadyDecided):
    """The call has started: its approval cannot be taken back any more."""


class BeingChanged(AlreadyDecided):
    """Somebody asked for other arguments, and what they asked for is being checked."""


class InvalidEdit(ActionError):
    """The changed arguments cannot be asked for; the message says what to put right."""


class AlreadyResolved(ActionError):
    """Somebody else was first to say what became of a call."""


class DigestMismatch(ActionError):
    """The vote was for other arguments than those that wait now."""


class LeaseLost(ActionError):
    """Another worker drives this run now; what this driver wanted to write is void."""


class BudgetUsedUp(ActionError):
    """The next model call does not fit into a budget that runs share: the driver decides again."""


class LedgerMissing(BudgetUsedUp):
    """The ledger of a budget is not open for the present period: it has to be opened first."""


class UnknownBudget(ActionError):
    """There is no such budget."""
