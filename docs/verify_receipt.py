#!/usr/bin/env python3
"""Check the receipt of a gated call, with nothing but Python's standard library.

    python verify_receipt.py receipt.json [--heads FILE]

Prints what it checked, one line each, then what the receipt shows and nothing in it proves, and exits with
0 when everything else holds, else with 1. `--heads` takes a list of heads that `manage.py verifyaudit
--heads FILE` wrote, at any time after the call: the chain of the receipt has to hold the head of its run.

How it is hashed, for whoever writes a checker of their own. Every hash is SHA-256, as 64 hexadecimal
digits. A text is hashed as its UTF-8 bytes. A list is hashed as JSON text in ASCII, everything else escaped
as \\uXXXX, with a comma and a space between its elements: ["event-v1", "", 1]. The digest of an approval is
that of the values of `digest.parts` in their order. The hash of an event is that of the list "event-v1",
hash of the event before it (empty for the first one), request id of the run, number, kind, actor, data,
time; `data` is the text as it stands in the receipt, not what it decodes to.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from datetime import datetime
from typing import Any

FORMAT = "agentops-receipt-1"
ENDS = ("approved", "rejected", "expired", "cancelled", "invalidated", "superseded", "revoked")


# What is compared with the chain or with the digest, by the part of the receipt that it stands in.
PROVEN = {
    "receipt": "format run call approval digest card votes start result events earlier_revisions permit",
    "run": "request_id agent events head",
    "call": "step tool_use_id tool tool_version status arguments arguments_sha256",
    "approval": "id revision state environment rule quorum roles self_approval policy_version edited_by "
    "created_at expires_at decided_at not_before redeemed_at",
    "digest": "sha256 parts",
    "card": "text sha256",
    "earlier": "id revision digest",
    "vote": "voter voter_id at verdict reason revision digest seconds_on_card",
    "start": "event at",
    "result": "text sha256",
    "event": "seq kind actor at data previous_hash hash",
}


class Wrong(Exception):
    """Something in the receipt contradicts something else in it."""


def sha256(text: str) -> str:
    """SHA-256 of a text. Half a surrogate pair cannot be UTF-8; no text that was hashed holds one."""
    return hashlib.sha256(text.encode()).hexdigest()


def list_hash(values: list[Any]) -> str:
    """SHA-256 of a list as JSON text in ASCII."""
    return sha256(json.dumps(values, ensure_ascii=True))


def demand(condition: bool, otherwise: str) -> None:
    """Raise Wrong with this sentence unless the condition holds."""
    if not condition:
        raise Wrong(otherwise)


SETTLING = ("call.finished", "call.refused", "call.unknown")  # what the agent was told is in these


class Receipt:
    """A receipt, and what its checks find on the way: the question's event, and the events about the call."""

    def __init__(self, whole: dict[str, Any]) -> None:
        demand(whole.get("format") == FORMAT, f"This is no receipt of the format {FORMAT}.")
        self.whole = whole
        self.run, self.call, self.approval = whole["run"], whole["call"], whole["approval"]
        self.permit = whole["permit"] if self.approval is None else None
        self.digest = "" if self.approval is None else whole["digest"]["sha256"]
        self.events = whole["events"]
        self.data = [json.loads(event["data"]) for event in self.events]
        self.question = -1  # index of the event that asked

    def find(self, kind: str) -> list[int]:
        """Indexes of the events of this kind about this call."""
        return [
            index
            for index, event in enumerate(self.events)
            if event["kind"] == kind and self.data[index].get("step") == self.call["step"]
        ]

    def check_chain(self) -> str:
        """Every event fits its hash, and each one follows the one before it, from the first to the head."""
        demand(bool(self.events), "It holds no events.")
        before = ""
        for number, event in enumerate(self.events, 1):
            demand(event["seq"] == number, f"Event {number} is missing from the chain.")
            demand(event["previous_hash"] == before, f"Event {number} does not follow the one before it.")
            values = [event[name] for name in ("kind", "actor", "data", "at")]
            expected = list_hash(["event-v1", before, self.run["request_id"], number, *values])
            demand(event["hash"] == expected, f"Event {number} ({event['kind']}) does not give its hash.")
            before = event["hash"]
        demand(self.events[0]["kind"] == "run.started", "The first event is not the start of the run.")
        demand(
            self.run["head"] == before and self.run["events"] == len(self.events),
            "The chain does not end with the head that the receipt names.",
        )
        return f"{len(self.events)} events form one chain, from run.started to the head {before}."

    def check_digest(self) -> str:
        """The digest is that of its parts, and the parts are what the receipt says of the call."""
        parts = {part["name"]: part["value"] for part in self.whole["digest"]["parts"]}
        values = [part["value"] for part in self.whole["digest"]["parts"]]
        demand(list_hash(values) == self.digest, "The digest is not that of its parts.")
        said = {
            "request_id": self.run["request_id"],
            **{name: self.call[name] for name in ("tool_use_id", "tool", "tool_version", "arguments")},
            **{name: self.approval[name] for name in ("revision", "rule", "environment")},
        }
        if parts.get("format") != "approval-v1":  # which is from before rules had versions
            said["policy_version"] = self.approval["policy_version"]
        for name, value in said.items():
            demand(name in parts and parts[name] == value, f"The digest is not about this {name}.")
        demand(
            sha256(self.call["arguments"]) == self.call["arguments_sha256"],
            "The arguments do not give their hash.",
        )
        return f"The digest {self.digest} is that of {len(values)} parts, among them the exact arguments."

    def check_question(self) -> str:
        """The digest and the card were put before people in an event."""
        asked = [
            index
            for index, event in enumerate(self.events)
            if event["kind"].startswith("approval.")
            and event["kind"] != "approval.vote"
            and self.data[index].get("digest") == self.digest
        ]
        demand(bool(asked), "No event asks about this digest.")
        self.question = asked[0]
        data = self.data[self.question]
        demand(data["step"] == self.call["step"], "The question was asked about another step.")
        card = self.whole["card"]
        demand(sha256(card["text"]) == card["sha256"], "The card does not give its hash.")
        demand(data.get("preview_sha256") == card["sha256"], "The card is not the one that was shown.")
        for name, value in (("approval", self.approval["id"]), ("quorum", self.approval["quorum"])):
            demand(data.get(name) == value, f"The event asked with another {name}.")
        demand(data.get("rule") == self.approval["rule"], "The event names another rule.")
        for name in ("roles", "self_approval"):  # events from before there were any say nothing of them
            demand(name not in data or data[name] == self.approval[name], f"The event asked other {name}.")
        demand(data.get("revision") == self.approval["revision"], "The event asks about another revision.")
        demand(
            data.get("edited_by") == self.approval.get("edited_by"),
            "The event names another person who changed it.",
        )
        when = self.events[self.question]["at"]
        return f"Event {self.events[self.question]['seq']} asked about this digest and card, {when}."

    def check_revisions(self) -> str:
        """Every earlier question about this call was asked and was over before this one was asked."""
        listed = self.whole.get("earlier_revisions", [])
        demand(
            [one["revision"] for one in listed] == list(range(1, self.approval["revision"])),
            "An earlier revision is missing.",
        )
        for one in listed:
            number = one["revision"]
            asked = [
                index for index in self.find("approval.asked") if self.data[index]["approval"] == one["id"]
            ]
            demand(bool(asked), f"Revision {number} was never asked.")
            demand(self.data[asked[0]]["digest"] == one["digest"], f"Revision {number} has another digest.")
            over = [
                index
                for end in ("superseded", "invalidated")
                for index in self.find(f"approval.{end}")
                if self.data[index]["approval"] == one["id"]
            ]
            demand(
                bool(over) and asked[0] < over[0] < self.question,
                f"Revision {number} was not over when the next one was asked.",
            )
        if not listed:
            return "Its arguments are those of the first question: nobody changed them."
        return f"{len(listed)} earlier revisions were over before it was asked, and their votes are void."

    def check_votes(self) -> str:
        """The votes are those of the chain, after the question, for this digest, one per person."""
        listed = []
        for vote in self.whole["votes"]:
            demand(vote["digest"] == self.digest, f"The vote of {vote['voter']} is for another digest.")
            listed.append((vote["voter_id"], vote["verdict"], vote["reason"], vote["at"]))
        recorded = []
        for index in self.find("approval.vote"):
            data, event = self.data[index], self.events[index]
            if data["digest"] == self.digest:
                demand(index > self.question, "A vote stands before the question.")
                recorded.append((data["voter"], data["verdict"], data["reason"], event["at"]))
        demand(sorted(listed) == sorted(recorded), "The votes are not those of the chain.")
        people = {vote[0] for vote in recorded}
        demand(len(people) == len(recorded), "Somebody voted twice.")
        self.check_voters()
        names = ", ".join(f"{vote['voter']} ({vote['verdict']})" for vote in self.whole["votes"])
        return f"{len(recorded)} votes for this digest, one per person: {names or 'nobody voted'}."

    def check_voters(self) -> None:
        """Name, revision and time on the card of each vote are those of its event."""
        recorded = {}
        for index in self.find("approval.vote"):
            if self.data[index]["digest"] == self.digest:
                recorded[self.data[index]["voter"]] = index
        for vote in self.whole["votes"]:
            index = recorded[vote["voter_id"]]
            name = self.events[index]["actor"]
            demand(vote["voter"] == name, f"The vote of {vote['voter']} was recorded as that of {name}.")
            same = vote["seconds_on_card"] == self.data[index].get("seconds_on_card")
            demand(same, f"The time on the card of {vote['voter']} is not the recorded one.")
            demand(vote["revision"] == self.approval["revision"], "A vote is for another revision.")

    def check_outcome(self) -> str:
        """The state is the last one of the chain; it is approved only with enough different people."""
        ends = [index for end in ENDS for index in self.find(f"approval.{end}") if self.is_about(index)]
        state = self.events[max(ends)]["kind"].split(".")[1] if ends else "pending"
        demand(state == self.approval["state"], f"The chain says {state}, the receipt another state.")
        demand(not ends or min(ends) > self.question, "It was decided before it was asked.")
        for index in self.find("approval.approved"):
            if self.is_about(index):
                self.check_quorum(index)
        return f"It is {state}" + (", with every vote that the rule asks for." if self.approved() else ".")

    def is_about(self, index: int) -> bool:
        """Whether the event is about this approval."""
        return bool(self.data[index].get("approval") == self.approval["id"])

    def approved(self) -> list[int]:
        return [index for index in self.find("approval.approved") if self.is_about(index)]

    def check_quorum(self, approved: int) -> None:
        """Before it was approved, as many different people as the question demanded had said yes, none no."""
        before = [
            self.data[index]
            for index in self.find("approval.vote")
            if index < approved and self.data[index]["digest"] == self.digest
        ]
        asked = self.data[self.question]
        yes = {data["voter"] for data in before if data["verdict"] == "approve"}
        demand(len(yes) == len(before), "It was approved although somebody had rejected it.")
        quorum = asked["quorum"]
        if quorum > 1 or asked.get("self_approval") is False:  # who changed the call does not check it
            yes.discard(asked.get("edited_by"))
        demand(len(yes) >= quorum, f"It was approved by {len(yes)} people, the rule asks for {quorum}.")
        for data in before:
            self.check_eligible(data)
        deadline = datetime.fromisoformat(asked["expires_at"])
        when = datetime.fromisoformat(self.events[approved]["at"])
        demand(when < deadline, "It was approved after the deadline.")

    def check_eligible(self, vote: dict[str, Any]) -> None:
        """This yes is of somebody to whom the question left it, as they were when they voted."""
        asked = self.data[self.question]
        if roles := asked.get("roles"):
            member = set(roles) & set(vote.get("groups") or ())
            demand(bool(member), f"It was approved by somebody in none of the groups {', '.join(roles)}.")
        own = asked.get("self_approval") is False and vote["self_approval"]
        demand(not own, "It was approved by whoever started the run, and the rule wants somebody else.")

    def check_start(self) -> str:
        """It started only while approved, and on exactly the approved bytes; or it never started."""
        starts = self.find("call.started")
        if not starts:
            demand(self.whole["start"] is None, "The receipt names a start that is not in the chain.")
            return f"The call never started, up to event {self.events[-1]['seq']}: the chain holds no START."
        first, last = starts[0], starts[-1]
        demand(
            (self.whole["start"] or {}).get("event") == self.events[last]["seq"], "START is another event."
        )
        approved = self.approved()
        demand(bool(approved) and approved[0] < first, "It started before it was approved.")
        for end in ENDS[1:]:
            ended = [index for index in self.find(f"approval.{end}") if self.is_about(index)]
            demand(not any(index < last for index in ended), f"It started after it was {end}.")
        not_before = self.data[approved[-1]].get("not_before")
        if not_before is not None:
            started = datetime.fromisoformat(self.events[first]["at"])
            demand(
                started >= datetime.fromisoformat(not_before), "It started while it could still be undone."
            )
        for index in starts:
            same = self.data[index]["arguments_sha256"] == self.call["arguments_sha256"]
            demand(same, "Other arguments were started than those approved.")
        again = self.find("call.restarted")
        demand(len(starts) <= len(again) + 1, "It was started more often than it was lost.")
        times = "once" if len(starts) == 1 else f"{len(starts)} times, with the same key"
        return f"It started {times}, after the approval, on exactly the approved arguments."

    def check_permit(self) -> str:
        """Nobody voted: START names the rule or grant that let it run, by the digest of its text."""
        permit = self.permit
        demand(not self.find("approval.asked"), "People were asked about it, so a rule alone is not enough.")
        starts = self.find("call.started")
        demand(bool(starts), "It never started, so nothing has to be proven.")
        text = ["policy-rule-1", permit["rule"], permit["content"]]
        demand(list_hash(text) == permit["sha256"], "The rule does not give its digest.")
        rule = json.loads(permit["content"])
        demand(rule["tool"] in ("", self.call["tool"]), "The rule is for another tool.")
        demand(
            rule["kind"] == {"rule": "allow", "grant": "grant"}[permit["source"]],
            "The rule does not let calls run.",
        )
        for index in starts:
            data = self.data[index]
            if data.get("source") == permit["source"]:
                demand(data["rule_digest"] == permit["sha256"], "START names another rule.")
        demand(self.data[starts[0]].get("rule_digest") == permit["sha256"], "START names another rule.")
        if permit["source"] == "grant":
            self.check_use(rule["uses"], starts[0])
        return f"The {permit['source']} {permit['rule']} let it start: {permit['content']}"

    def check_use(self, uses: int, start: int) -> None:
        """It cost the grant one use, and there was one."""
        used = self.find("grant.used")
        demand(len(used) == 1, "It did not cost the grant one use.")
        data, event = self.data[used[0]], self.events[used[0]]
        demand(used[0] < start, "The use was counted after START.")
        demand(1 <= data["number"] <= uses == data["uses"], "The grant had no such use.")
        demand(
            self.permit["use"] == {"event": event["seq"], "number": data["number"]}, "The use is another one."
        )

    def check_permitted_start(self) -> str:
        """It started on exactly these arguments."""
        starts = self.find("call.started")
        named = (self.whole["start"] or {}).get("event")
        demand(named == self.events[starts[-1]]["seq"], "START is another event.")
        demand(
            sha256(self.call["arguments"]) == self.call["arguments_sha256"],
            "The arguments do not give their hash.",
        )
        for index in starts:
            same = self.data[index]["arguments_sha256"] == self.call["arguments_sha256"]
            demand(same, "Other arguments were started.")
        demand(len(starts) <= len(self.find("call.restarted")) + 1, "It was started more often than lost.")
        return "It started on exactly these arguments."

    def check_result(self) -> str:
        """The result is the one of the chain, after START; or there is none."""
        ended = [
            index
            for index, data in enumerate(self.data)
            if data.get("step") == self.call["step"] and self.events[index]["kind"] in SETTLING
        ]
        result = self.whole["result"]
        if not ended:
            demand(result is None, "The receipt shows a result that is not in the chain.")
            return "There is no result yet."
        demand(result is not None, "The chain holds a result that the receipt does not show.")
        demand(sha256(result["text"]) == result["sha256"], "The result does not give its hash.")
        demand(self.data[ended[-1]]["result_sha256"] == result["sha256"], "The result is another one.")
        starts = self.find("call.started")
        kind = self.events[ended[-1]]["kind"]
        if kind == "call.finished":
            demand(bool(starts) and starts[-1] < ended[-1], "It has a result and never started.")
            return f"Its result was recorded after START, {self.data[ended[-1]]['status']}."
        if kind == "call.refused":
            demand(not starts or starts[-1] > ended[-1], "It started and is said to have been refused.")
            return "It was refused; the text that the agent was told is the one of the chain."
        return "Its outcome is not known, and the agent was told so."

    def check_shown(self) -> str:
        """Times, state of the call and agent are those of the chain."""
        ends = [index for end in ENDS for index in self.find(f"approval.{end}") if self.is_about(index)]
        starts = self.find("call.started")
        asked = self.data[self.question]
        shown = {
            "created_at": self.events[self.question]["at"],
            "expires_at": asked["expires_at"],
            "decided_at": self.events[min(ends)]["at"] if ends else None,
            "redeemed_at": self.events[starts[0]]["at"] if starts else None,
            "not_before": self.data[self.approved()[-1]].get("not_before") if self.approved() else None,
        }
        for name, value in shown.items():
            demand(self.same_time(self.approval[name], value), f"The chain has another {name}.")
        if starts:
            at = self.events[starts[-1]]["at"]
            demand(self.same_time(self.whole["start"]["at"], at), "START was at another time.")
        demand(self.call["status"] == self.status(), f"The chain says that the call is {self.status()}.")
        demand(self.data[0]["agent"] == self.run["agent"], "The chain names another agent.")
        return "The times, the state of the call and the agent are those of the chain."

    def same_time(self, shown: str | None, recorded: str | None) -> bool:
        """Whether both are the same moment, or both none."""
        if shown is None or recorded is None:
            return shown == recorded
        return datetime.fromisoformat(shown) == datetime.fromisoformat(recorded)

    def status(self) -> str:
        """What the call is by the last event that moved it."""
        state = {"pending": "waiting", "approved": "ready"}.get(self.approval["state"], "refused")
        for index, data in enumerate(self.data):
            if data.get("step") == self.call["step"]:
                kind = self.events[index]["kind"]
                moved = {"call.started": "executing", "call.restarted": "ready", "call.refused": "refused"}
                moved |= {"call.unknown": "unknown", "call.finished": str(data.get("status"))}
                state = moved.get(kind, state)
        return state

    def unproven(self) -> list[str]:
        """What the receipt shows and nothing in it proves, by name."""
        parts = {"receipt": [self.whole], "vote": self.whole["votes"], "event": self.events}
        parts["earlier"] = self.whole.get("earlier_revisions", [])
        singles = ("run", "call", "approval", "digest", "card", "start", "result")
        parts |= {name: [self.whole[name]] for name in singles if self.whole.get(name) is not None}
        found = []
        for part, shown in parts.items():
            names = {name: None for one in shown for name in one if name not in PROVEN[part].split()}
            found += [name if part == "receipt" else f"{part}.{name}" for name in names]
        if "run.started_by" in found and self.run["started_by"] == self.events[0]["actor"]:
            found.remove("run.started_by")
        return found


CHECKS = (
    Receipt.check_chain,
    Receipt.check_digest,
    Receipt.check_question,
    Receipt.check_revisions,
    Receipt.check_votes,
    Receipt.check_outcome,
    Receipt.check_start,
    Receipt.check_result,
    Receipt.check_shown,
)
# Of a call on which nobody voted, because a rule or a grant of people let it run.
PERMIT_CHECKS = (
    Receipt.check_chain,
    Receipt.check_permit,
    Receipt.check_permitted_start,
    Receipt.check_result,
)


def check_head(receipt: Receipt, heads: str) -> str:
    """The head that was noted for this run is in the chain."""
    for line in heads.splitlines()[1:]:
        request_id, number, noted = line.split()
        if request_id == receipt.run["request_id"]:
            found = {str(event["seq"]): event["hash"] for event in receipt.events}.get(number)
            demand(found is not None, f"The noted head is event {number}; the receipt ends before it.")
            demand(found == noted, f"Event {number} was noted with another hash: the chain was rewritten.")
            return f"The noted head, event {number}, is in this chain."
    raise Wrong("The list of heads does not name this run.")


def verify(text: str, heads: str | None = None) -> tuple[list[str], str]:
    """What holds, one sentence each, and what does not; empty when everything holds."""
    held: list[str] = []
    try:
        receipt = Receipt(json.loads(text))
        for check in PERMIT_CHECKS if receipt.approval is None else CHECKS:
            held.append(check(receipt))
        if heads is not None:
            held.append(check_head(receipt, heads))
    except Wrong as wrong:
        return held, str(wrong)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        return held, f"It is no complete receipt ({type(error).__name__}). Fetch it again from its page."
    return held, ""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("receipt", help="file with the receipt, or - for standard input")
    parser.add_argument("--heads", help="file with heads that were noted")
    options = parser.parse_args()
    try:
        text = sys.stdin.read() if options.receipt == "-" else _content(options.receipt)
        heads = _content(options.heads) if options.heads else None
    except (OSError, UnicodeDecodeError) as error:
        print(f"Cannot read it: {error}")
        return 1
    held, wrong = verify(text, heads)
    for sentence in held:
        print(f"holds  {sentence}")
    if wrong:
        print(f"WRONG  {wrong}")
        return 1
    unproven = Receipt(json.loads(text)).unproven()
    if unproven:
        print(f"open   Shown, and proven by nothing in it: {', '.join(unproven)}.")
    print("The receipt holds.")
    if heads is None:
        print("Whether this is the chain of that installation, only a head that was noted elsewhere can say.")
    return 0


def _content(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


if __name__ == "__main__":
    sys.exit(main())
