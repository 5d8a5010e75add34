"""What a message says: from the facts of an event to the body of a webhook or an e-mail. Pure.

Every word is ours or a plain fact. Nothing that an agent wrote gets here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

MOST_SLACK_HEADER = 150
COSTS = "costs.summary"

HEADS = {
    "approval.asked": "Approve?",
    "approval.expiring": "Still undecided:",
    "approval.expired": "Expired:",
    "approval.withdrawn": "Withdrawn:",
    "call.relapsed": "It came back after:",
    COSTS: "Costs",
    "test": "Test:",
}
AT_LIMIT = {
    "wrap_up": "Runs that have no room in it wrap up and are stopped.",
    "pause": "Runs that have no room in it pause until somebody raises it or its next period begins.",
    "notify": "It only notifies: no call is held back.",
}
OUTCOMES = {
    "approved": "Approved:",
    "rejected": "Rejected:",
    "succeeded": "Succeeded:",
    "failed": "Failed:",
    "unknown": "Outcome unknown:",
}


def title(notice: str, facts: Mapping[str, Any]) -> str:
    """One line: what happened, then the headline of the card, or the budget."""
    if notice == "budget.reached":
        what = "No room left in" if facts["was_full"] else f"{facts['threshold']} % used of"
        return f"{what} the budget {facts['headline']}"
    head = HEADS.get(notice) or OUTCOMES.get(facts["outcome"], "")
    return f"{head} {facts['headline']}"


def explanation(notice: str, facts: Mapping[str, Any]) -> str:
    """What it means for whoever reads it, in a sentence or two."""
    outcome = facts["outcome"]
    if notice == COSTS:
        return "\n".join(facts["lines"])
    if notice in {"approval.asked", "approval.expiring"}:
        undo = "It can be undone." if facts["reversible"] else "It cannot be undone."
        votes = f" It needs {facts['quorum']} votes." if facts["quorum"] > 1 else ""
        return f"{undo}{votes} Without a decision by {_time(facts['expires_at'])} it is refused."
    if notice == "approval.decided":
        then = "It runs once." if outcome == "approved" else "It does not run; the agent is told why."
        return f"{outcome.capitalize()} by {facts['by']}. {then}"
    if notice == "approval.expired":
        return "The deadline passed. It did not run, and the agent was told so."
    if notice == "approval.withdrawn":
        if outcome == "superseded":
            return "Somebody changed the call: the changed one is asked about next. This one does not run."
        if outcome == "revoked":
            return f"{facts['by']} took the approval back before it started. It did not run."
        return "Nobody has to decide any more: the run ended, or the call changed. It did not run."
    if notice == "call.relapsed":
        return "The approved call had worked, and its effect is gone now. Look at its run, and let it go on."
    if notice == "budget.reached":
        return f"{_used(facts)} are used. {AT_LIMIT[facts['at_limit']]} It ends {_time(facts['ends_at'])}."
    if notice == "call.ended":
        return {
            "succeeded": "The approved call ran and succeeded.",
            "failed": "The approved call ran and reported an error.",
        }.get(
            outcome, "The approved call started and its result was never recorded. Look at what it changed."
        )
    return "If you read this, the channel works."


def facts_shown(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts beside the title, as label and value."""
    if "budget" in facts:
        simulated = [("Costs", "simulated")] if facts["simulated"] else []
        crossed = [("Crossed by run", str(facts["crossed_by"]))] if facts["crossed_by"] else []
        return [("Used", _used(facts)), ("Period ends", _time(facts["ends_at"])), *crossed, *simulated]
    if "run" not in facts:
        return []
    agent = f"{facts['agent']} (simulated)" if facts["simulated"] else str(facts["agent"])
    return [
        ("Environment", str(facts["environment"])),
        ("Agent", agent),
        ("Run", str(facts["run"])),
        ("Deadline", _time(facts["expires_at"])),
    ]


def link(facts: Mapping[str, Any], base_url: str) -> str:
    """The address of the card, budget or report; empty without a base address, and for what has no page."""
    if base_url and "budget" in facts:
        return f"{base_url}/budgets/{facts['budget']}/"
    if base_url and "path" in facts:
        return f"{base_url}{facts['path']}"
    return f"{base_url}/approvals/{facts['approval']}/" if base_url and "approval" in facts else ""


def json_body(notice: str, facts: Mapping[str, Any], base_url: str) -> bytes:
    """Our own body: {"type", "timestamp", "title", "text", "data"}."""
    body = {
        "type": notice,
        "timestamp": facts["at"],
        "title": title(notice, facts),
        "text": explanation(notice, facts),
        "data": {**facts, "link": link(facts, base_url)},
    }
    return json.dumps(body, ensure_ascii=False).encode()


def slack_body(notice: str, facts: Mapping[str, Any], base_url: str) -> bytes:
    """{"text", "blocks"}; Mattermost and others that take Slack's webhooks show the text.

    What is not ours stands in plain text blocks or is escaped: it cannot mention people or make links.
    """
    said = title(notice, facts)
    address = link(facts, base_url)
    linked = f" <{address}|{_opens(notice, facts)}>" if address else ""
    lines = [_plain(f"{label}: {value}") for label, value in facts_shown(facts)]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(said[:MOST_SLACK_HEADER])},
        {"type": "section", "text": _plain(explanation(notice, facts))},
    ]
    if lines:
        blocks.append({"type": "context", "elements": lines})
    if address:
        what = _plain(_opens(notice, facts))
        button = {"type": "button", "text": what, "url": address, "style": "primary"}
        blocks.append({"type": "actions", "elements": [button]})
    text = f"{_escaped(said)}\n{_escaped(explanation(notice, facts))}{linked}"
    return json.dumps({"text": text, "blocks": blocks}, ensure_ascii=False).encode()


def mail(notice: str, facts: Mapping[str, Any], base_url: str) -> tuple[str, str]:
    """Subject and plain text."""
    address = link(facts, base_url)
    parts = [title(notice, facts), explanation(notice, facts)]
    shown = facts_shown(facts)
    if shown:
        parts.append("\n".join(f"{label}: {value}" for label, value in shown))
    if address:
        parts.append(f"Look at the card and decide: {address}" if _is_open(notice) else address)
    return f"[agentops] {title(notice, facts)}"[:200], "\n\n".join(parts) + "\n"


def _used(facts: Mapping[str, Any]) -> str:
    """$41.20 of $50; 1,200 of 5,000 tokens."""
    used, limit = Decimal(facts["used"]), Decimal(facts["limit"])
    if facts["limited"] == "cost_usd":
        return f"${used:,.2f} of ${limit:,.2f}" if limit >= 10 else f"${used:.4f} of ${limit:.4f}"
    what = "tokens" if facts["limited"] == "tokens" else "tool calls"
    return f"{used:,.0f} of {limit:,.0f} {what}"


def _opens(notice: str, facts: Mapping[str, Any]) -> str:
    if notice == COSTS:
        return "Open the report"
    return "Open the budget" if "budget" in facts else "Open the card"


def _is_open(notice: str) -> bool:
    return notice in {"approval.asked", "approval.expiring"}


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
