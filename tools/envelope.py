"""The envelope of an answer: clean, masked, bounded JSON with always the same keys."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import Any

from tools.base import Outcome, Result, Tool, ToolContext, ToolError
from tools.bounding import HARD_LIMIT, LINE_CHARACTERS, Tidier, dumps, fit, middle_cut

log = logging.getLogger(__name__)

MOST_SENTENCES = 12
SUMMARY_CHARACTERS = 300
MESSAGE_CHARACTERS = 1_500
SMALLEST_LIMIT = 2_000
SIDE_BUDGET = 8_000  # characters looked at in what an envelope says besides data


def of_result(tool: Tool, context: ToolContext, result: Result, notes: tuple[str, ...] = ()) -> Outcome:
    """The outcome of a call that returned. `notes` are added to the warnings.

    Raises TypeError when JSON cannot hold the result, and whatever its data raises while it is read.
    """
    return _outcome(tool, context, result, None, notes)


def of_failure(tool: Tool, context: ToolContext, error: ToolError, notes: tuple[str, ...] = ()) -> Outcome:
    """The outcome of a call that failed. Data that cannot be described is left out."""
    failed = Result(summary=error.message, data=error.data, status="error", hints=error.hints)
    try:
        return _outcome(tool, context, failed, error, notes)
    except Exception:  # what it says about certainty must not get lost with its data
        log.exception("the failure of %s could not be described in full", tool.name)
        return _outcome(tool, context, replace(failed, data={}, hints=()), error, notes)


def _outcome(
    tool: Tool, context: ToolContext, result: Result, error: ToolError | None, notes: tuple[str, ...]
) -> Outcome:
    tidier = Tidier()
    data = tidier.value(result.data)
    message = tidier.text(result.summary, MESSAGE_CHARACTERS)
    summary = message if len(message) <= SUMMARY_CHARACTERS else message[: SUMMARY_CHARACTERS - 1] + "…"
    envelope: dict[str, Any] = {
        "status": result.status,
        "evidence_id": context.evidence_id[:40],
        "source": tidier.value(result.source, SIDE_BUDGET),
        "asked": tidier.value(result.asked, SIDE_BUDGET),
        "summary": summary,
        "data": data if isinstance(data, dict) else {"value": data},
        "truncation": tidier.value(result.truncation, SIDE_BUDGET) or {"truncated": False},
        "warnings": [tidier.text(line, LINE_CHARACTERS) for line in result.warnings[:MOST_SENTENCES]],
        "hints": [tidier.text(line, LINE_CHARACTERS) for line in result.hints[:MOST_SENTENCES]],
        "error": None if error is None else _error(error, message),
    }
    envelope["warnings"] += [*notes, *_notes(tidier)]
    text = _bounded(envelope, max(SMALLEST_LIMIT, min(HARD_LIMIT, tool.output_limit)))
    uncertain = error is not None and error.may_have_acted and tool.effect != "read"
    return Outcome(text, error is not None, summary, error.kind if error else "", uncertain)


def _error(error: ToolError, message: str) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": error.kind, "retryable": error.retryable}
    if error.retry_after_s is not None:
        described["retry_after_s"] = max(0.0, min(86400.0, error.retry_after_s))
    return described | {"message": message}


def _notes(tidier: Tidier) -> list[str]:
    notes = []
    if tidier.redactions:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(Counter(tidier.redactions).items()))
        notes.append(f"redactions: {sum(tidier.redactions.values())} ({kinds}); the values were masked.")
    if tidier.not_finite:
        notes.append(f"{tidier.not_finite} values were not finite numbers and became null.")
    if tidier.shortened:
        notes.append(f"{tidier.shortened} long texts were cut in the middle.")
    if tidier.dropped:
        notes.append("The result was far too large or too deep; only its beginning was read.")
    return notes


def _bounded(envelope: dict[str, Any], limit: int) -> str:
    """The envelope as JSON of at most `limit` characters: data gets what the rest leaves, at least half."""
    text = dumps(envelope)
    if len(text) <= limit:
        return text
    envelope["truncation"] = {"truncated": True} | envelope["truncation"] | {"truncated": True}
    note = (
        f"The result was cut to {limit:,} characters. Narrow the question, or page with cursor, for the rest."
    )
    envelope["warnings"].insert(0, note)
    around = len(dumps(envelope | {"data": {}}))
    if around > limit // 2:
        for part in ("source", "asked", "truncation", "warnings", "hints"):
            envelope[part] = fit(envelope[part], limit // 10)
        around = len(dumps(envelope | {"data": {}}))
    envelope["data"] = fit(envelope["data"], max(2, limit - around + 2))
    text = dumps(envelope)
    if len(text) > limit:  # only a message of many escaped characters can still be too long
        envelope["summary"] = middle_cut(envelope["summary"], 120)
        if envelope["error"]:
            envelope["error"]["message"] = envelope["summary"]
        text = dumps(envelope)
    return text
