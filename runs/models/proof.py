"""What events say of a call beyond its number, so that a receipt can be proven from the chain alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from runs.models.approval import Approval, Origin
from runs.models.step import Step
from tools.policy import Verdict


def sha256(text: str) -> str:
    """SHA-256 of this text in UTF-8, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_parts(
    step: Step,
    arguments: str,
    *,
    tool_version: str,
    revision: int,
    rule: str,
    environment: str,
    policy_version: str = "",
) -> dict[str, Any]:
    """What an approval's digest is made of: names, and in this order the values that are hashed.

    Approvals asked before rules had versions have none in their digest.
    """
    versions = {"policy_version": policy_version} if policy_version else {}
    return {
        "format": "approval-v2" if policy_version else "approval-v1",
        "request_id": str(step.run.request_id),
        "tool_use_id": step.tool_use_id,
        "revision": revision,
        "tool": step.name,
        "tool_version": tool_version,
        "arguments": arguments,
        "rule": rule,
        "environment": environment,
        **versions,
    }


def digest_of(parts: dict[str, Any]) -> str:
    """SHA-256 over the values of these parts as a JSON list: no two lists share their bytes."""
    return hashlib.sha256(json.dumps(list(parts.values()), ensure_ascii=True).encode()).hexdigest()


def approval_digest(approval: Approval) -> str:
    """The digest of what this row says now; `approval.digest` is that of what people were asked."""
    return digest_of(
        digest_parts(
            approval.step,
            approval.arguments,
            tool_version=approval.step.tool_version,
            revision=approval.revision,
            rule=approval.rule,
            environment=approval.environment,
            policy_version=approval.policy_version,
        )
    )


def decided(verdict: Verdict) -> dict[str, Any]:
    """For the event of a decision: the rule that made it, who wrote it, and the version of all rules."""
    told: dict[str, Any] = {"rule": verdict.rule, "source": verdict.source, "policy": verdict.version}
    if verdict.change is None:
        return told
    return told | {"rule_change": verdict.change, "rule_digest": verdict.rule_digest}


def asked(approval: Approval) -> dict[str, Any]:
    """For the event that puts a question before people: what they were shown, and what was asked of them."""
    more: dict[str, Any] = {"origin": approval.origin} if approval.revision > 1 else {}
    if approval.edited_by_id is not None:
        more["edited_by"] = approval.edited_by_id
    if approval.differences:
        more["differences"] = approval.changed
    return more | {
        "approval": approval.pk,
        "digest": approval.digest,
        "rule": approval.rule,
        "revision": approval.revision,
        "quorum": approval.quorum,
        "roles": approval.roles,
        "self_approval": approval.self_approval,
        "rule_change": approval.rule_change,
        "policy": approval.policy_version,
        "expires_at": approval.expires_at.isoformat(),
        "preview_sha256": sha256(approval.preview),
        "environment": approval.environment,
        "rule_reason": approval.rule_reason,
        "execute_within_seconds": approval.execute_within_seconds,
        "cooling_off_seconds": approval.cooling_off_seconds,
    }


def not_as_asked(approval: Approval, said: dict[str, Any]) -> list[str]:
    """Names of what this row says otherwise than the event that put the question before people.

    Versions before recorded fewer facts in that event; what it does not mention is not compared.
    """
    facts: dict[str, Any] = json.loads(json.dumps(asked(approval)))
    names = [name for name in facts if facts[name] != said.get(name, facts[name])]
    names += [name for name in ("edited_by", "differences") if (name in facts) != (name in said)]
    if approval.origin != said.get("origin", Origin.PROPOSED):
        names.append("origin")
    if approval.headline != approval.headline_of_preview:
        names.append("headline")
    return names
