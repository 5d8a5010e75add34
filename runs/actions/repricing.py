"""Charge the past at the prices that hold now: a dry run first, then exactly what it showed.

A dry run stores what would change, run by run, with a digest over every single change. Applying it goes
through the runs, one transaction each: whoever is killed in the middle has done whole runs, and anybody goes
on. A run whose ledger is not what the dry run saw is left as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from itertools import batched

from django.db import transaction
from django.utils import timezone

from runs.actions.budgets import look_at_budgets_again
from runs.actions.change import change, one_writer
from runs.actions.corrections import correct
from runs.actions.errors import ActionError
from runs.actions.new_prices import RunChanges, changes_at_new_prices
from runs.actions.prices import LONGEST_REASON, lock_prices
from runs.hints import NO_RUN, announce
from runs.models import LineState, Repricing, RepricingLine, RepricingState
from runs.models.prices_in_force import look, version_of_prices

AT_ONCE = 2_000  # rows


class UnknownRepricing(ActionError):
    """There is no such repricing."""


class RepricingOutdated(ActionError):
    """Since the dry run the ledger or a price changed: what it showed is not what would be done."""


def plan_repricing(
    *, actor: str, since: datetime, until: datetime, model: str = "", agent: str = ""
) -> Repricing:
    """A dry run: what charges of this time, by the end of each attempt, would be at the prices that hold now.

    `model` and `agent` empty: all of them. Nothing is written to any run. Raises ActionError.
    """
    if until <= since:
        raise ActionError("The period has to end after it begins.")
    Repricing.objects.filter(state=RepricingState.DRY_RUN, digest="").delete()  # nobody saw their end
    until = min(until, timezone.now())
    if until <= since:
        raise ActionError("The period is still to come. Nothing was charged in it yet.")
    plan = Repricing(made_by=actor, since=since, until=until, model=model.strip(), agent=agent.strip())
    look()
    plan.prices = version_of_prices()
    total = hashlib.sha256()
    lines: list[RepricingLine] = []  # nothing is written while the ledger is being read
    for changes in changes_at_new_prices(plan):
        total.update(changes.seal)
        plan.run_count += 1
        lines += changes.lines(plan)
    plan.charge_count = sum(line.charges for line in lines)
    plan.before = sum(line.before for line in lines)
    plan.after = sum(line.after for line in lines)
    with one_writer():
        plan.save()  # without a digest nobody finds it yet
    for several in batched(lines, AT_ONCE, strict=False):
        with one_writer():
            RepricingLine.objects.bulk_create(several)
    plan.digest = _digest(plan, total.hexdigest())
    with one_writer():
        plan.save(update_fields=["digest"])
    return plan


def apply_repricing(*, actor: str, repricing_id: int, digest: str, reason: str) -> Repricing:
    """Begin to do exactly what the dry run with this digest showed; `apply_some` does it, in any process.

    Raises RepricingOutdated when the ledger or a price is another by now, ActionError otherwise.
    """
    plan = find_repricing(repricing_id)
    if not reason.strip() or len(reason.strip()) > LONGEST_REASON:
        raise ActionError(f"Say in at most {LONGEST_REASON} characters why past charges change.")
    _must_be_new(plan, digest)
    if not plan.charge_count:
        raise ActionError("Nothing would change, so there is nothing to apply.")
    look()
    total = hashlib.sha256()
    for changes in changes_at_new_prices(plan):
        total.update(changes.seal)
    if plan.prices != version_of_prices() or plan.digest != _digest(plan, total.hexdigest()):
        raise _outdated()
    with one_writer(), transaction.atomic():
        lock_prices()
        plan = Repricing.objects.select_for_update().get(pk=repricing_id)
        _must_be_new(plan, digest)
        if plan.prices != version_of_prices():
            raise _outdated()
        if Repricing.objects.filter(state=RepricingState.APPLYING).exists():
            raise ActionError("Another repricing is being applied. Wait until it is finished.")
        plan.state = RepricingState.APPLYING
        plan.applied_by, plan.applied_at, plan.reason = actor, timezone.now(), reason.strip()
        plan.save()
        announce(NO_RUN)
    return plan


def apply_some(*, most: int = 50, should_stop: Callable[[], bool] = lambda: False) -> bool:
    """Go on with the repricing that is being applied, up to this many runs. Whether there is more to do.

    Any number of processes may do it at the same time: each run is done once.
    """
    plan = Repricing.objects.filter(state=RepricingState.APPLYING).first()
    if plan is None:
        return False
    left = plan.lines.filter(state=LineState.PLANNED)
    for run_id in list(left.order_by("run_id").values_list("run_id", flat=True).distinct()[:most]):
        if should_stop():
            return True
        _apply_to_run(plan, run_id)
    if left.exists():
        return True
    with one_writer():
        finished = Repricing.objects.filter(pk=plan.pk, state=RepricingState.APPLYING).update(
            state=RepricingState.APPLIED, finished_at=timezone.now()
        )
    if finished:
        why = f"{plan.applied_by} repriced what was charged."
        look_at_budgets_again(actor=plan.applied_by, why=why, unpriced=False)
    return False


def find_repricing(repricing_id: int) -> Repricing:
    """The repricing with this number. Raises UnknownRepricing."""
    found = Repricing.objects.filter(pk=repricing_id).exclude(digest="").first()
    if found is None:
        raise UnknownRepricing("There is no such repricing.")
    return found


def _apply_to_run(plan: Repricing, run_id: int) -> None:
    """All changes of one run, or none when they are not those of the dry run."""
    with change(run_id, actor=plan.applied_by) as current:
        lines = RepricingLine.objects.filter(repricing=plan, run=run_id)
        line = lines.filter(state=LineState.PLANNED).first()
        if line is None:  # another process was first
            return
        look()
        changes = next(changes_at_new_prices(plan, run_id), RunChanges(run_id))
        if changes.digest != line.digest:
            lines.update(state=LineState.CHANGED)
            return
        before, after = correct(current, changes.corrections)
        lines.update(state=LineState.APPLIED)
        current.event(
            "run.repriced",
            repricing=plan.pk,
            charges=len(changes.corrections),
            cost_before=str(before),
            cost_after=str(after),
            changes_sha256=changes.digest,
        )


def _digest(plan: Repricing, changes: str) -> str:
    facts = [plan.since.isoformat(), plan.until.isoformat(), plan.model, plan.agent, plan.prices, changes]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _must_be_new(plan: Repricing, digest: str) -> None:
    if plan.state != RepricingState.DRY_RUN:
        raise ActionError(f"{plan.applied_by} has applied it already.")
    if plan.digest != digest:
        raise _outdated()


def _outdated() -> RepricingOutdated:
    return RepricingOutdated(
        "Since this dry run the ledger or a price has changed. Nothing was repriced: make a new dry run."
    )
