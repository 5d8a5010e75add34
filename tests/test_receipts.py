"""A receipt proves without the database who allowed a call, and that it ran on those bytes or never ran."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from runs import actions
from runs.models import Approval, Run, RunStatus, Vote
from runs.reading.receipts import receipt_text
from tests.factories import a_lease, a_run, a_turn, a_waiting_call
from tests.test_policy_rules import a_proposed_call, authorize, begin, in_force

pytestmark = pytest.mark.django_db
SCRIPT = Path(__file__).resolve().parent.parent / "docs/verify_receipt.py"
SPECIAL = 'é\u2028\U0001f600 \u202e \\u0041 "quoted" </script> \x7f\ttab\nline'

specification = importlib.util.spec_from_file_location("verify_receipt", SCRIPT)
assert specification and specification.loader
checker = importlib.util.module_from_spec(specification)
specification.loader.exec_module(checker)


def vote(approval: Approval, voter: User, verdict: str = "approve", reason: str = "") -> None:
    actions.decide(
        approval_id=approval.pk,
        voter=voter,
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        revision=approval.revision,
        digest=approval.digest,
    )


def ran(*voters: User, **question: Any) -> tuple[Run, int]:
    """A run whose gated call was approved by these people and executed."""
    _, step, approval = a_waiting_call(quorum=len(voters), **question)
    for voter in voters:
        vote(approval, voter, reason=SPECIAL)
    lease = a_lease(Run.objects.get(pk=approval.run_id))
    assert actions.start_call(lease, step.seq, tool_version=step.tool_version)
    text = json.dumps({"status": "ok", "summary": SPECIAL}, ensure_ascii=False)
    actions.finish_call(lease, step.seq, actions.Result(text, False, "Done.", ""))
    a_turn(lease, text="Resolved.")
    actions.end_run(lease, status=RunStatus.SUCCEEDED, final_response="Resolved.")
    return approval.run, step.seq


def checked(run: Run, seq: int) -> tuple[str, str]:
    """What the checker says holds, and what does not."""
    held, wrong = checker.verify(receipt_text(run, seq))
    return "\n".join(held), wrong


def run_script(*arguments: str) -> tuple[int, str]:
    """The script on its own: no site packages, no environment, another folder."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), *arguments], capture_output=True, text=True, cwd="/"
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_it_proves_who_approved_what_ran(
    operator: User, second_operator: User, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preview = {"headline": SPECIAL, "changes": [], "chips": [], "reversible": True}
    run, seq = ran(operator, second_operator, preview=preview)
    client.force_login(operator)
    response = client.get(f"/runs/{run.request_id}/steps/{seq}/receipt.json")
    assert response["Content-Disposition"] == f'attachment; filename="receipt-{run.request_id}-{seq}.json"'
    kept = tmp_path / "receipt.json"
    kept.write_bytes(response.content)
    call_command("verifyaudit", "--heads", str(tmp_path / "heads"))
    status, said = run_script(str(kept), "--heads", str(tmp_path / "heads"))
    assert status == 0, said
    for words in (
        "form one chain",
        "olga (approve), dana (approve)",
        "with every vote that the rule asks for",
        "It started once, after the approval, on exactly the approved arguments.",
        "Its result was recorded after START, succeeded.",
        "The noted head, event",
        "The receipt holds.",
    ):
        assert words in said
    capsys.readouterr()
    call_command("receipt", str(run.request_id), str(seq))
    printed, downloaded = json.loads(capsys.readouterr().out), json.loads(response.content)
    assert printed | {"made_at": ""} == downloaded | {"made_at": ""}


def test_it_proves_that_a_call_never_ran(operator: User) -> None:
    _, rejected, approval = a_waiting_call()
    said, wrong = checked(approval.run, rejected.seq)
    assert not wrong and "It is pending." in said and "the chain holds no START" in said
    vote(approval, operator, "reject", "Not now.")
    said, wrong = checked(approval.run, rejected.seq)
    assert not wrong and "olga (reject)" in said and "the chain holds no START" in said
    assert "It was refused; the text that the agent was told is the one of the chain." in said


def test_it_covers_deadlines_restarts_and_unknown_outcomes(operator: User) -> None:
    _, expired, approval = a_waiting_call(decide_within_seconds=0)
    with pytest.raises(actions.ApprovalExpired):
        vote(approval, operator)
    said, wrong = checked(approval.run, expired.seq)
    assert not wrong and "It is expired." in said

    _, lost, approval = a_waiting_call(a_run("Another"))
    vote(approval, operator)
    lease = a_lease(approval.run)
    for _ in range(2):
        assert actions.start_call(lease, lost.seq, tool_version=lost.tool_version)
        actions.recover_call(lease, lost.seq, repeatable=True)
    assert actions.start_call(lease, lost.seq, tool_version=lost.tool_version)
    actions.recover_call(lease, lost.seq, repeatable=False)
    said, wrong = checked(approval.run, lost.seq)
    assert not wrong and "started 3 times" in said and "Its outcome is not known" in said

    _, late, approval = a_waiting_call(a_run("A third"), execute_within_seconds=0)
    vote(approval, operator)
    assert actions.start_call(a_lease(approval.run), late.seq, tool_version=late.tool_version) is None
    said, wrong = checked(approval.run, late.seq)
    assert not wrong and "never started" in said and "It is expired" in said


Forgery = Callable[[dict[str, Any]], object]


def rechain(receipt: dict[str, Any]) -> None:
    """What a forger does who knows how the chain is made."""
    tip = ""
    for number, event in enumerate(receipt["events"], 1):
        event |= {"seq": number, "previous_hash": tip}
        values = [event[name] for name in ("kind", "actor", "data", "at")]
        parts = ["event-v1", tip, receipt["run"]["request_id"], number, *values]
        event["hash"] = tip = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    receipt["run"] |= {"head": tip, "events": len(receipt["events"])}


def of_kind(receipt: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for event in receipt["events"] if event["kind"] == kind]


def drop(kind: str) -> Forgery:
    """Leave all events of this kind out and chain the rest anew."""

    def forge(receipt: dict[str, Any]) -> None:
        receipt["events"] = [event for event in receipt["events"] if event["kind"] != kind]
        rechain(receipt)

    return forge


def first_before_second(kind: str, other: str) -> Forgery:
    """Move the events of one kind before those of the other, and chain everything anew."""

    def forge(receipt: dict[str, Any]) -> None:
        moved = of_kind(receipt, kind)
        rest = [event for event in receipt["events"] if event["kind"] != kind]
        place = next(index for index, event in enumerate(rest) if event["kind"] == other)
        receipt["events"] = [*rest[:place], *moved, *rest[place:]]
        starts = of_kind(receipt, "call.started")
        rechain(receipt)
        if starts:
            receipt["start"]["event"] = starts[-1]["seq"]

    return forge


def say(kind: str, **values: Any) -> Forgery:
    """Change the data of the events of this kind and chain everything anew."""

    def forge(receipt: dict[str, Any]) -> None:
        for event in of_kind(receipt, kind):
            event["data"] = json.dumps(json.loads(event["data"]) | values)
        rechain(receipt)

    return forge


def one_vote_fewer(receipt: dict[str, Any]) -> None:
    first = of_kind(receipt, "approval.vote")[0]
    receipt["events"].remove(first)
    receipt["votes"].pop(0)
    rechain(receipt)
    receipt["start"]["event"] = of_kind(receipt, "call.started")[-1]["seq"]


FORGERIES: list[tuple[str, Forgery]] = [
    ("no receipt of the format", lambda r: r.update(format="other")),
    ("no complete receipt", lambda r: r.pop("votes")),
    ("is missing from the chain", lambda r: r["events"].pop(4)),
    ("does not give its hash", lambda r: r["events"][2].update(actor="mallory")),
    ("does not follow", lambda r: r["events"][2].update(previous_hash="0" * 64)),
    ("does not end with the head", lambda r: r["run"].update(head="0" * 64)),
    ("does not give its hash", lambda r: r["run"].update(request_id="another")),
    ("is not the start of the run", drop("run.started")),
    ("not that of its parts", lambda r: r["digest"]["parts"][4].update(value="scale_service")),
    ("not about this tool", lambda r: r["call"].update(tool="scale_service")),
    ("not about this arguments", lambda r: r["call"].update(arguments="{}")),
    ("not about this rule", lambda r: r["approval"].update(rule="another")),
    ("arguments do not give their hash", lambda r: r["call"].update(arguments_sha256="0" * 64)),
    ("No event asks about this digest", drop("approval.asked")),
    ("card does not give its hash", lambda r: r["card"].update(text="{}")),
    ("not the one that was shown", lambda r: r.update(card={"text": "{}", "sha256": checker.sha256("{}")})),
    ("with another quorum", lambda r: r["approval"].update(quorum=1)),
    ("about another step", say("approval.asked", step=1)),
    ("not those of the chain", lambda r: r["votes"].pop()),
    ("not those of the chain", lambda r: r["votes"][0].update(reason="Never mind.")),
    ("is for another digest", lambda r: r["votes"][0].update(digest="0" * 64)),
    ("before the question", first_before_second("approval.vote", "approval.asked")),
    ("approved by 1 people, the rule asks for 2", one_vote_fewer),
    ("approved by 0 people", first_before_second("approval.approved", "approval.vote")),
    ("The chain says pending", drop("approval.approved")),
    ("the receipt another state", lambda r: r["approval"].update(state="rejected")),
    ("after the deadline", say("approval.asked", expires_at="2020-01-01T00:00:00+00:00")),
    ("a start that is not in the chain", drop("call.started")),
    ("START is another event", lambda r: r["start"].update(event=1)),
    ("before it was approved", first_before_second("call.started", "approval.approved")),
    ("Other arguments were started", say("call.started", arguments_sha256="0" * 64)),
    ("result that is not in the chain", drop("call.finished")),
    ("does not show", lambda r: r.update(result=None)),
    ("result does not give its hash", lambda r: r["result"].update(text="{}")),
    ("was recorded as that of", lambda r: r["votes"][0].update(voter="mallory")),
    ("time on the card of", lambda r: r["votes"][0].update(seconds_on_card=60.0)),
    ("is for another revision", lambda r: r["votes"][0].update(revision=2)),
    ("has another created_at", lambda r: r["approval"].update(created_at="2020-01-01T00:00:00+00:00")),
    ("has another expires_at", lambda r: r["approval"].update(expires_at="2030-01-01T00:00:00+00:00")),
    ("has another decided_at", lambda r: r["approval"].update(decided_at=None)),
    ("has another redeemed_at", lambda r: r["approval"].update(redeemed_at=None)),
    ("START was at another time", lambda r: r["start"].update(at="2020-01-01T00:00:00+00:00")),
    ("says that the call is succeeded", lambda r: r["call"].update(status="failed")),
    ("names another agent", lambda r: r["run"].update(agent="another")),
    ("result is another one", lambda r: r.update(result={"text": "{}", "sha256": checker.sha256("{}")})),
]


@pytest.fixture
def receipt(operator: User, second_operator: User) -> dict[str, Any]:
    """A receipt that holds, of a call that two people approved and that ran."""
    whole: dict[str, Any] = json.loads(receipt_text(*ran(operator, second_operator)))
    assert checker.verify(json.dumps(whole))[1] == ""
    return whole


@pytest.mark.parametrize(("words", "forge"), FORGERIES, ids=[f"{n}-{w[0]}" for n, w in enumerate(FORGERIES)])
def test_it_finds_every_forgery(receipt: dict[str, Any], words: str, forge: Forgery) -> None:
    forge(receipt)
    assert words in checker.verify(json.dumps(receipt))[1]


def test_what_nothing_proves_is_named(operator: User, tmp_path: Path) -> None:
    run, seq = ran(operator)
    operator.username = "olga.schmidt"  # who is renamed has voted under the old name
    operator.save()
    shown = json.loads(receipt_text(run, seq))
    shown["approval"]["approved_by"] = "the chief"
    kept = tmp_path / "receipt.json"
    kept.write_text(json.dumps(shown))
    status, said = run_script(str(kept))
    assert status == 0 and "olga (approve)" in said
    (line,) = [line for line in said.splitlines() if line.startswith("open ")]
    names = set(line.removeprefix("open   Shown, and proven by nothing in it: ").rstrip(".").split(", "))
    assert {"made_at", "made_by", "call.effect", "approval.rule_reason", "approval.approved_by"} <= names
    assert not names & {"vote.voter", "vote.at", "approval.decided_at", "call.status", "run.started_by"}
    shown["run"]["started_by"] = "somebody else"
    kept.write_text(json.dumps(shown))
    assert "run.started_by" in run_script(str(kept))[1]


def test_one_person_cannot_be_two(receipt: dict[str, Any]) -> None:
    same = receipt["votes"][0]["voter_id"]
    receipt["votes"][1]["voter_id"] = same
    say("approval.vote", voter=same)(receipt)
    assert "Somebody voted twice." in checker.verify(json.dumps(receipt))[1]


def test_a_whole_forgery_is_found_with_a_head_that_was_noted(receipt: dict[str, Any], tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    call_command("verifyaudit", "--heads", str(heads))
    receipt["votes"][0]["reason"] = "Never mind."
    vote = of_kind(receipt, "approval.vote")[0]
    vote["data"] = json.dumps(json.loads(vote["data"]) | {"reason": "Never mind."})
    rechain(receipt)
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(receipt))
    assert run_script(str(forged))[0] == 0  # it agrees with itself
    status, said = run_script(str(forged), "--heads", str(heads))
    assert status == 1 and "the chain was rewritten" in said


def test_rows_that_were_changed_behind_the_chain_do_not_pass(operator: User) -> None:
    run, seq = ran(operator)
    Vote.objects.update(reason="Something else")
    assert "not those of the chain" in checked(run, seq)[1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "agentops-receipt-1"}', "null"])
def test_junk_is_no_receipt(text: str, tmp_path: Path) -> None:
    held, wrong = checker.verify(text)
    assert wrong and not held


def test_only_gated_calls_have_receipts(client: Client, operator: User) -> None:
    lease = a_lease(a_run())
    (step,) = a_turn(lease, ("get_metrics", "read", {}))
    run = step.run
    for seq, sentence in ((1, "no tool call"), (step.seq, "needed no approval"), (9, "no step 9")):
        with pytest.raises(CommandError, match=sentence):
            call_command("receipt", str(run.request_id), str(seq))
    client.force_login(operator)
    page = client.get(f"/runs/{run.request_id}/steps/9/receipt.json")
    assert page.status_code == 404 and "There is no step 9" in page.content.decode()
    assert client.get(f"/runs/{'0' * 8}-0000-0000-0000-{'0' * 12}/steps/9/receipt.json").status_code == 404


def test_the_card_and_the_step_lead_to_the_receipt(client: Client, operator: User) -> None:
    _, step, approval = a_waiting_call()
    client.force_login(operator)
    link = f'href="/runs/{approval.run.request_id}/steps/{step.seq}/receipt.json" download'
    assert link in client.get(f"/approvals/{approval.pk}/").content.decode()
    assert link in client.get(f"/runs/{approval.run.request_id}/?step={step.seq}").content.decode()


def permitted(owner: User, **fields: Any) -> dict[str, Any]:
    """The receipt of a call that a rule or a grant let run, without a vote."""
    in_force(owner, **fields)
    lease, step = a_proposed_call()
    authorize(lease, step)
    begin(lease, step)
    actions.finish_call(lease, step.seq, actions.Result("{}", False, "Done.", ""))
    whole: dict[str, Any] = json.loads(receipt_text(step.run, step.seq))
    return whole


@pytest.mark.parametrize("kind", ["allow", "grant"])
def test_a_call_that_a_rule_or_a_grant_let_run_has_a_receipt(owner: User, kind: str) -> None:
    whole = permitted(owner, kind=kind)
    said, wrong = checker.verify(json.dumps(whole))
    assert not wrong, wrong
    assert any("small-scaling let it start" in sentence and "replicas" in sentence for sentence in said)
    assert whole["permit"]["by"] == "petra" and whole["permit"]["why"] == "It is right."
    assert (whole["permit"]["use"] is not None) == (kind == "grant")


PERMIT_FORGERIES: list[tuple[str, Forgery]] = [
    ("rule does not give its digest", lambda r: r["permit"].update(content="{}")),
    ("rule does not give its digest", lambda r: r["permit"].update(rule="another")),
    ("START names another rule", say("call.started", rule_digest="0" * 64)),
    ("did not cost the grant one use", drop("grant.used")),
    ("had no such use", say("grant.used", number=6)),
    ("had no such use", say("grant.used", uses=50)),
    ("The use is another one", lambda r: r["permit"]["use"].update(number=2)),
    ("counted after START", first_before_second("call.started", "grant.used")),
    ("It never started", drop("call.started")),
    ("Other arguments were started", say("call.started", arguments_sha256="0" * 64)),
    ("arguments do not give their hash", lambda r: r["call"].update(arguments="{}")),
    ("START is another event", lambda r: r["start"].update(event=1)),
    ("result is another one", lambda r: r.update(result={"text": "[]", "sha256": checker.sha256("[]")})),
    ("no complete receipt", lambda r: r.pop("permit")),
]


@pytest.mark.parametrize(("words", "forge"), PERMIT_FORGERIES)
def test_it_finds_forgeries_of_what_let_a_call_run(owner: User, words: str, forge: Forgery) -> None:
    whole = permitted(owner, kind="grant", uses="5")
    forge(whole)
    assert words in checker.verify(json.dumps(whole))[1]


def test_an_approval_asked_before_rules_had_versions_still_verifies(operator: User) -> None:
    run, seq = ran(operator)
    old = json.loads(receipt_text(run, seq))
    assert old["digest"]["parts"][0]["value"] == "approval-v1" and old["approval"]["policy_version"] == ""
    for event in of_kind(old, "approval.asked"):  # as such events were
        data = json.loads(event["data"])
        event["data"] = json.dumps(
            {k: v for k, v in data.items() if k not in {"roles", "self_approval", "policy"}}
        )
    rechain(old)
    del old["approval"]["policy_version"], old["approval"]["roles"], old["approval"]["self_approval"]
    assert checker.verify(json.dumps(old))[1] == ""
    _, step, approval = a_waiting_call(a_run("now"), policy_version="f" * 64, roles=("On-call",))
    new = json.loads(receipt_text(approval.run, step.seq))
    assert new["digest"]["parts"][-1] == {"name": "policy_version", "value": "f" * 64}
    assert checker.verify(json.dumps(new))[1] == ""
    new["approval"]["policy_version"] = "0" * 64
    assert "not about this policy_version" in checker.verify(json.dumps(new))[1]
