"""Each column of each row of a decision is changed once: a checker names it, or the docs list it."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.db import models

from runs import actions
from runs.engine.drive import drive
from runs.models import (
    Approval,
    Edit,
    Event,
    Finding,
    GrantUse,
    PolicyChange,
    PolicyHead,
    PolicyRule,
    Recheck,
    Resolution,
    Run,
    Step,
    Vote,
)
from runs.reading.audit import read_chains
from runs.reading.invariants import contradictions
from runs.reading.rule_audit import audit_rules
from tests.conftest import ROOT
from tests.factories import a_lease, a_waiting_call
from tests.test_forged_rows import a_grant, columns, forge, verdict_of
from tests.test_policy_rules import a_proposed_call, authorize, in_force
from tests.test_revisions import asked, change, decide, goes_on, newest

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENT = (ROOT / "docs" / "approvals.md").read_text()
# Rows of the table “Not proven”: | `table.column` | why |
NOT_PROVEN = set(re.findall(r"^\| `(\w+\.\w+)` \|", DOCUMENT, re.MULTILINE))
TABLES: tuple[type[models.Model], ...] = (
    *(Approval, Vote, Edit, Resolution, Finding, Recheck, GrantUse),
    *(PolicyRule, PolicyChange, PolicyHead, Event),
)


def problems(row: models.Model | None = None) -> list[str]:
    """What `checkruns` and `verifyaudit` say, about everything or about the run or the rules of this row."""
    run_id = {Run: getattr(row, "pk", None), Vote: None}.get(type(row), getattr(row, "run_id", None))
    if isinstance(row, Vote):
        run_id = Approval.objects.values_list("run_id", flat=True).get(pk=row.approval_id)
    found = []
    for run in Run.objects.filter(pk=run_id) if run_id else Run.objects.all() if row is None else ():
        found += contradictions(run)
        found += [one for chain in read_chains(request_id=run.request_id) for one in chain.problems]
    return found if run_id else [*found, *audit_rules().problems]


@pytest.fixture
def decided(operator: User, second_operator: User, owner: User) -> None:
    """Calls that were edited, approved, allowed by a grant, lost and settled, and looked at again."""
    step, approval = asked()
    change(approval, operator, replicas=6)
    goes_on(step)
    decide(newest(step), second_operator)
    drive(a_lease(Run.objects.get(pk=step.run_id)), lambda: False)
    for recheck in Recheck.objects.filter(state="due"):
        forge(recheck, due_at=recheck.run.created_at)
    due = Recheck.objects.filter(state="due").order_by("pk").first()
    assert due is not None
    claimed = actions.claim_recheck(due.pk, lease_seconds=30)
    assert claimed is not None
    actions.record_recheck(claimed, "relapsed", "It is full again.", worker="w")  # type: ignore[arg-type]
    actions.answer_relapse(recheck_id=due.pk, by=operator)
    _lost_call(operator)
    a_grant(owner)
    in_force(owner, name="two-people", kind="ask", tool="revert_deployment", conditions="", quorum="2")
    lease, call = a_proposed_call()
    call = authorize(lease, call)
    actions.start_call(lease, call.seq, tool_version=call.tool_version, verdict=verdict_of(call))


def _lost_call(operator: User) -> None:
    """One whose worker died; its probe could not tell, and a person settled it."""
    lease, step, approval = a_waiting_call()
    decide(approval, operator)
    lease = a_lease(Run.objects.get(pk=step.run_id), "worker-2")
    actions.start_call(lease, step.seq, tool_version=step.tool_version)
    found = actions.Found("cannot_tell", "Its log is gone.")  # type: ignore[arg-type]
    actions.reconcile_call(lease, step.seq, found)
    actions.resolve_outcome(
        run_id=step.run_id, seq=step.seq, verdict="happened", evidence="I saw it.", by=operator
    )


@pytest.mark.usefixtures("decided")
def test_every_column_of_a_decision_is_proven_or_listed() -> None:
    assert problems() == []
    silent = set()
    for table in TABLES:
        rows = list(table._base_manager.order_by("pk"))
        assert rows, f"there is no {table.__name__} to change"
        for row in rows[:1] + rows[-1:]:
            for name, value in columns(row):
                kept = {name: getattr(row, name)}
                if value != kept[name] and forge(row, **{name: value}):
                    if not problems(row):
                        silent.add(f"{table.__name__}.{name}")
                    forge(row, **kept)
    assert silent <= NOT_PROVEN, f"nothing proves {sorted(silent - NOT_PROVEN)}"
    assert problems() == []


@pytest.mark.usefixtures("decided")
@pytest.mark.parametrize("table", [Vote, Edit, Resolution, Finding, GrantUse])
def test_a_row_that_is_gone_is_missed(table: type[models.Model]) -> None:
    assert problems() == []
    table._base_manager.filter(pk=table._base_manager.order_by("pk").first().pk)._raw_delete("default")  # type: ignore[union-attr]
    assert problems()


GARBAGE = ("{}", "[]", "null", "7", "not JSON", "")


@pytest.mark.usefixtures("decided")
def test_no_checker_breaks_on_any_text() -> None:
    """Each text of each row holds something else: a sentence comes of it, and never a traceback."""
    for table in (*TABLES, Step, Run):
        row = table._base_manager.order_by("pk").first()
        assert row is not None
        for field in row._meta.concrete_fields:
            if isinstance(field, models.TextField):
                kept = getattr(row, field.attname)
                for text in GARBAGE:
                    if forge(row, **{field.attname: text}):
                        assert all(isinstance(sentence, str) for sentence in problems(row))
                forge(row, **{field.attname: kept})
    assert problems() == []
