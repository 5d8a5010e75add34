"""What events say of a call beyond its number, so that a receipt can be proven from the chain alone."""

from __future__ import annotations

import hashlib
from typing import Any

from runs.models.approval import Approval
from runs.models.step import Step


def sha256(text: str) -> str:
    """SHA-256 of this text in UTF-8, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_parts(
    step: Step, arguments: str, *, tool_version: str, revision: int, rule: str, environment: str
) -> dict[str, Any]:
    """What an approval's digest is made of: names, and in this order the values that are hashed."""
    return {
        "format": "approval-v1",
        "request_id": str(step.run.request_id),
        "tool_use_id": step.tool_use_id,
        "revision": revision,
        "tool": step.name,
        "tool_version": tool_version,
        "arguments": arguments,
        "rule": rule,
        "environment": environment,
    }


def asked(approval: Approval) -> dict[str, Any]:
    """For the event that puts a question before people: what they were shown, and what was asked of them."""
    return {
        "approval": approval.pk,
        "digest": approval.digest,
        "rule": approval.rule,
        "revision": approval.revision,
        "quorum": approval.quorum,
        "expires_at": approval.expires_at.isoformat(),
        "preview_sha256": sha256(approval.preview),
    }
