"""Nobody changes the record unnoticed, as far as a chain of hashes can promise that."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Model
from django.utils import timezone

from runs import actions
from runs.actions import WantedRule
from runs.models import Event, PolicyChange, PolicyRule, Run, event_hash
from tests.factories import a_run, a_waiting_call

pytestmark = pytest.mark.django_db


def verify(*arguments: str) -> tuple[str, bool]:
    """What the command prints, and whether it found nothing."""
    out = StringIO()
    try:
        call_command("verifyaudit", *arguments, stdout=out)
    except SystemExit:
        return out.getvalue(), False
    return out.getvalue(), True


@pytest.fixture
def runs(operator: User) -> list[Run]:
    """Two runs with some events each."""
    _, _, approval = a_waiting_call()
    actions.decide(
        approval_id=approval.pk, voter=operator, verdict="reject", revision=1, digest=approval.digest
    )
    a_waiting_call(a_run("Another question"))
    return list(Run.objects.order_by("pk"))


def rehash(run: Run, start: int) -> None:
    """What somebody does who owns the database: compute everything anew."""
    events = list(run.events.order_by("seq"))
    tip = events[start - 2].hash if start > 1 else ""
    for event in events[start - 1 :]:
        event.previous_hash = tip
        event.hash = tip = event_hash(
            previous_hash=tip,
            request_id=str(run.request_id),
            seq=event.seq,
            kind=event.kind,
            actor=event.actor,
            data=event.data,
            at=event.at,
        )
        event.save()
    Run.objects.filter(pk=run.pk).update(last_event_hash=tip, last_event=events[-1].seq)


def test_what_nobody_touched_is_whole(runs: list[Run]) -> None:
    said, fine = verify()
    assert fine and "Nothing is broken." in said
    assert f"{Event.objects.count()} events of 2 runs checked" in said


def swap(run: Run) -> None:
    three, four = run.events.filter(seq__in=[3, 4]).order_by("seq")
    Event.objects.filter(pk=three.pk).update(seq=999)
    Event.objects.filter(pk=four.pk).update(seq=3)
    Event.objects.filter(pk=three.pk).update(seq=4)


def splice(run: Run) -> None:
    """Event 5 is made to continue event 3, with a hash that fits: event 4 hangs in the air."""
    five = run.events.get(seq=5)
    five.previous_hash = run.events.get(seq=3).hash
    five.hash = event_hash(
        previous_hash=five.previous_hash,
        request_id=str(run.request_id),
        seq=5,
        kind=five.kind,
        actor=five.actor,
        data=five.data,
        at=five.at,
    )
    five.save()


TAMPERED: list[tuple[str, Callable[[Run], object]]] = [
    (
        "event 3 (model.started by worker-1) was changed",
        lambda run: run.events.filter(seq=3).update(data="{}"),
    ),
    ("event 4 is missing", lambda run: run.events.filter(seq=4).delete()),
    ("events 3 to 5 are missing", lambda run: run.events.filter(seq__in=[3, 4, 5]).delete()),
    ("the chain ends with event", lambda run: run.events.order_by("-seq")[0].delete()),
    ("the run row says that event 2 (", lambda run: Run.objects.filter(pk=run.pk).update(last_event=2)),
    ("the chain ends with event 0 (none)", lambda run: run.events.all().delete()),
    ("event 3 (model.finished) does not follow event 2", swap),
    ("event 5 (approval.asked) does not follow event 4: the chain forks at event 3", splice),
]


@pytest.mark.parametrize(("words", "tamper"), TAMPERED, ids=[words for words, _ in TAMPERED])
def test_it_says_what_is_broken_where(runs: list[Run], words: str, tamper: Callable[[Run], object]) -> None:
    tamper(runs[0])
    said, fine = verify()
    assert not fine
    assert f"run {runs[0].request_id}: " in said and words in said
    assert str(runs[1].request_id) not in said


def test_one_run_alone_and_runs_of_late(runs: list[Run]) -> None:
    runs[0].events.filter(seq=2).update(actor="mallory")
    assert "was changed" in verify("--run", str(runs[0].request_id))[0]
    assert verify("--run", str(runs[1].request_id))[1]
    assert not verify("--since", "2020-01-01")[1]
    said, fine = verify("--since", "2999-01-01T00:00Z")
    assert fine and "0 events of 0 runs" in said


def test_a_run_that_lost_its_end_is_not_taken_for_an_old_one(runs: list[Run]) -> None:
    runs[0].events.order_by("-seq")[0].delete()
    assert "the chain ends with event" in verify("--since", "2999-01-01")[0]


def test_heads_noted_earlier_show_what_a_whole_new_chain_hides(runs: list[Run], tmp_path: Path) -> None:
    noted = tmp_path / "heads"
    digest = verify("--heads", str(noted))[0].split("runs: ")[1].split()[0]
    assert "All 2 noted heads are where they were." in verify("--expect", str(noted), "--anchor", digest)[0]
    actions.cancel_run(run_id=runs[1].pk, actor="olga")  # runs that go on are no alarm
    assert verify("--expect", str(noted), "--anchor", digest)[1]

    vote = runs[0].events.get(kind="approval.vote")
    vote.data = json.dumps(vote.fields | {"verdict": "approve"})
    vote.save()
    rehash(runs[0], vote.seq)
    assert verify()[1]  # by itself the new chain is as good as the old one
    said, fine = verify("--expect", str(noted))
    assert not fine and f"run {runs[0].request_id} was rewritten: event" in said


def test_heads_noted_earlier_show_what_was_cut_off_or_deleted(runs: list[Run], tmp_path: Path) -> None:
    noted = str(tmp_path / "heads")
    verify("--heads", noted)
    last = runs[0].events.order_by("-seq")[0]
    last.delete()
    Run.objects.filter(pk=runs[0].pk).update(last_event=last.seq - 1, last_event_hash=last.previous_hash)
    runs[1].approvals.all().delete()
    runs[1].delete()
    assert verify()[1]
    said, fine = verify("--expect", noted)
    assert not fine
    assert f"run {runs[0].request_id} was cut off" in said
    assert f"run {runs[1].request_id} is gone" in said


def test_heads_noted_earlier_hold_the_chain_of_rules(runs: list[Run], owner: User, tmp_path: Path) -> None:
    for name in ("no-restarts", "no-reverts"):
        actions.draft_rule(
            WantedRule(name=name, kind="deny", reason="No.", effect="destructive"), why="Try.", by=owner
        )
    noted = str(tmp_path / "heads")
    assert "heads of 2 runs" in verify("--heads", noted)[0]
    assert verify("--expect", noted)[1]
    last = PolicyChange.objects.order_by("pk").last()
    assert last is not None
    PolicyChange.objects.filter(pk=last.pk).update(hash="0" * 64)
    assert "the rules were rewritten: change 2" in verify("--expect", noted)[0]
    PolicyRule.objects.filter(pk=last.rule_id).update(draft=None)
    Model.delete(last)
    assert "the rules were cut off: change 2" in verify("--expect", noted)[0]


def test_a_changed_note_is_no_witness(runs: list[Run], tmp_path: Path) -> None:
    noted = tmp_path / "heads"
    digest = verify("--heads", str(noted))[0].split("runs: ")[1].split()[0]
    noted.write_text(noted.read_text().replace(runs[0].last_event_hash, "0" * 64))
    with pytest.raises(CommandError, match="was changed since it was written"):
        verify("--expect", str(noted))
    actions.cancel_run(run_id=runs[1].pk, actor="olga")
    verify("--heads", str(noted))
    assert "not the one whose digest was noted" in verify("--expect", str(noted), "--anchor", digest)[0]
    assert "the digest is another one" in verify("--anchor", digest)[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--since", "yesterday"], "is no date"),
        (["--since", "2026-02-31"], "is no date"),
        (["--run", "7"], "not a request id"),
        (["--expect", "/nowhere/heads"], "Cannot read"),
        (["--since", "2026-01-01", "--heads", "x"], "leave out"),
    ],
)
def test_wrong_usage_is_answered_with_what_to_do(
    runs: list[Run], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence):
        verify(*arguments)


def test_events_whose_run_was_deleted_around_us_are_found(runs: list[Run]) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite lets anybody switch its foreign keys off")
    now = timezone.now()
    with connection.constraint_checks_disabled(), connection.cursor() as cursor:
        cursor.execute("PRAGMA defer_foreign_keys = ON")
        Event.objects.create(run_id=runs[0].pk, seq=900, kind="x", actor="x", at=now, hash="x")
        cursor.execute("UPDATE runs_event SET run_id = 9999 WHERE seq = 900")
        said, fine = verify()
        Event.objects.filter(seq=900).delete()
    assert not fine and "1 event belongs to no run: its run was deleted" in said
