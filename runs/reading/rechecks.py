"""Later looks at changes that had worked, for the page of their run and for the queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import OuterRef, QuerySet, Subquery

from runs.models import Approval, Recheck, RecheckState, Run

MAX_RELAPSES = 20


@dataclass(frozen=True)
class Look:
    """One look at a change, made or planned."""

    pk: int
    seq: int
    headline: str
    state: str
    observed: str
    due_at: datetime
    checked_at: datetime | None
    answered_by: str
    answered_at: datetime | None
    run: Run
    follow_up: Run | None

    @property
    def is_open(self) -> bool:
        """It came back, and nobody took care of it."""
        return self.state == RecheckState.RELAPSED and self.answered_at is None

    @property
    def question(self) -> str:
        """What a follow-up run is asked."""
        when = f"{self.checked_at:%Y-%m-%d %H:%M} UTC" if self.checked_at else "later"
        seen = f"It came back after “{self.headline}”. Seen {when}: {self.observed}"
        return f"{seen} Find out why, and what to do now."


def read_looks(run: Run) -> tuple[Look, ...]:
    """All looks at changes of this run that were not dropped, in order: one query."""
    found = _named().filter(run=run).exclude(state=RecheckState.DROPPED).order_by("step_id", "due_at")
    return tuple(_look(recheck) for recheck in found.select_related("run", "step", "follow_up"))


def read_relapses() -> tuple[Look, ...]:
    """What came back and nobody took care of, newest first: one query."""
    found = _named().filter(state=RecheckState.RELAPSED, answered_at__isnull=True)
    rows = found.select_related("run", "step", "follow_up").defer(*HEAVY).order_by("-checked_at")
    return tuple(_look(recheck) for recheck in rows[:MAX_RELAPSES])


def find_look(pk: int) -> Look | None:
    """This look, or None."""
    recheck = _named().select_related("run", "step", "follow_up").filter(pk=pk).first()
    return None if recheck is None else _look(recheck)


HEAVY = ("run__config", "run__final_response", "run__opening", "step__result", "step__arguments")


def _named() -> QuerySet[Recheck]:
    """Rechecks with the headline of the card that was approved."""
    ran = Approval.objects.filter(step=OuterRef("step"), redeemed_at__isnull=False)
    return Recheck.objects.annotate(headline=Subquery(ran.order_by("-revision").values("headline")[:1]))


def _look(recheck: Recheck) -> Look:
    return Look(
        pk=recheck.pk,
        seq=recheck.step.seq,
        headline=getattr(recheck, "headline", "") or recheck.step.name,
        state=recheck.state,
        observed=recheck.observed,
        due_at=recheck.due_at,
        checked_at=recheck.checked_at,
        answered_by=recheck.answered_by,
        answered_at=recheck.answered_at,
        run=recheck.run,
        follow_up=recheck.follow_up,
    )
