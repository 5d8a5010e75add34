"""Places in a run that people look for: the next error, the next question, the dearest step."""

from __future__ import annotations

from django.db.models import QuerySet

from runs.models import Run, Step
from runs.reading.trace_rows import FAILED_STATUSES

NAMES = {"error": "error", "approval": "step that asked a person", "cost": "step with a price"}


def find_step(run: Run, kind: str, after: int) -> int | None:
    """The next step of this kind after that number, else the first of the run; None when it has none.

    Kinds: error, approval; cost is the most expensive step, whatever `after` says.
    """
    if kind == "cost":
        priced = run.steps.filter(cost_usd__gt=0).order_by("-cost_usd", "seq")
        return priced.values_list("seq", flat=True).first()
    steps = _errors(run) if kind == "error" else _questions(run)
    seqs = steps.order_by("seq").values_list("seq", flat=True)
    return seqs.filter(seq__gt=after).first() or seqs.first()


def _errors(run: Run) -> QuerySet[Step]:
    return run.steps.filter(status__in=FAILED_STATUSES)


def _questions(run: Run) -> QuerySet[Step]:
    return Step.objects.filter(pk__in=run.approvals.values("step_id"))
