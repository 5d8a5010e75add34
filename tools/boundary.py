"""The only way to run a tool: whatever it does, the caller gets a bounded, well-formed answer in time."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from django.db import connections

from tools import schema
from tools.base import Outcome, Result, Tool, ToolContext, ToolError
from tools.bounding import HARD_LIMIT, LINE_CHARACTERS, Tidier, dumps, fit, middle_cut

log = logging.getLogger(__name__)

MOST_ABANDONED = 8  # calls of one tool that may hang before new ones are refused
MOST_SENTENCES = 12
SUMMARY_CHARACTERS = 300
MESSAGE_CHARACTERS = 1_500
SMALLEST_LIMIT = 2_000
_abandoned: dict[str, weakref.WeakSet[threading.Thread]] = {}
_abandoned_lock = threading.Lock()


def invalid_arguments(tool: Tool, arguments: object) -> str:
    """ "" when the arguments fit the tool's schema, else the sentence that tells the model what to change."""
    return schema.problem(tool.arguments_model, tool.input_schema, arguments)


def call(tool: Tool, arguments: object, context: ToolContext) -> Outcome:
    """Run the tool and return its envelope as JSON text. Never raises, and returns by the tool's deadline."""
    try:
        return _envelope(tool, context, _run(tool, tool.function, arguments, context))
    except Exception:  # the last net: cleaning itself failed
        log.exception("the result of %s could not be prepared", tool.name)
        return _envelope(tool, context, ToolError("internal", _INTERNAL))


def preview(tool: Tool, arguments: object, context: ToolContext) -> dict[str, Any]:
    """The approval card of a call, from a dry run. Never raises: `problem` says what went wrong."""
    card = _empty_card(tool, arguments, context)
    if tool.dry_run is None:
        return card | {"problem": f"{tool.name} has no dry run."}
    try:
        drawn = _run(tool, tool.dry_run, arguments, context)
        if isinstance(drawn, ToolError):
            return card | {"problem": _card_text(drawn.message)}
        if not isinstance(drawn, Mapping):
            return card | {"problem": "The dry run returned something that is not a card."}
        tidy, _ = fit(Tidier().value(drawn), HARD_LIMIT)
        return card | {key: tidy[key] for key in card if key in tidy}
    except Exception:
        log.exception("the dry run of %s could not be prepared", tool.name)
        return card | {"problem": _INTERNAL}


_INTERNAL = (
    "The tool failed unexpectedly; its operator has the details. Use another tool or go on without it."
)


def _empty_card(tool: Tool, arguments: object, context: ToolContext) -> dict[str, Any]:
    headline = tool.headline(arguments) if isinstance(arguments, dict) else tool.name
    return {
        "headline": _card_text(headline),
        "object": "",
        "environment": context.environment,
        "action": tool.name.replace("_", " "),
        "chips": [],
        "changes": [],
        "reversible": False,
        "effect_if_rejected": "Nothing changes.",
        "problem": "",
    }


def _card_text(text: str) -> str:
    return Tidier().text(text)


def _run(tool: Tool, function: Callable[..., Any], arguments: object, context: ToolContext) -> Any:
    """What the function returned, or the ToolError it deserves."""
    wrong = invalid_arguments(tool, arguments)
    if wrong:
        return ToolError(
            "invalid_argument", f"{wrong} Nothing was run; call {tool.name} again with that put right."
        )
    if not isinstance(arguments, dict):  # invalid_arguments has said so; this is for the type checker
        return ToolError("invalid_argument", "The arguments must be one JSON object.")
    hanging = _hanging(tool.name)
    if hanging >= MOST_ABANDONED:
        return ToolError(
            "unavailable",
            f"{tool.name} does not answer: {hanging} earlier calls still hang. Use another tool.",
        )
    return _within_deadline(tool, function, schema.parsed(tool.arguments_model, arguments), context)


def _within_deadline(
    tool: Tool, function: Callable[..., Any], arguments: dict[str, Any], context: ToolContext
) -> Any:
    answer: list[Any] = []

    def work() -> None:
        try:
            answer.append(function(context, **arguments))
        except ToolError as error:
            answer.append(error)
        except BaseException:  # SystemExit in a tool must not end anything but the call
            log.exception("%s failed", tool.name)
            answer.append(ToolError("internal", _INTERNAL))
        finally:
            connections.close_all()  # connections belong to their thread, and this one ends

    thread = threading.Thread(target=work, name=f"tool {tool.name}", daemon=True)
    thread.start()
    thread.join(tool.deadline_seconds)
    if answer:
        return answer[0]
    with _abandoned_lock:
        _abandoned.setdefault(tool.name, weakref.WeakSet()).add(thread)
    return ToolError("timeout", _timeout(tool), retryable=tool.effect == "read")


def _timeout(tool: Tool) -> str:
    if tool.effect == "read":
        advice = "Ask for less (a shorter time range, one service), or use another tool."
    else:
        advice = "It may or may not have taken effect. Do not repeat it; read the current state first."
    return f"{tool.name} did not answer within {tool.deadline_seconds:g} s. {advice}"


def _hanging(name: str) -> int:
    with _abandoned_lock:
        return sum(thread.is_alive() for thread in _abandoned.get(name, ()))


def _envelope(tool: Tool, context: ToolContext, answer: Any) -> Outcome:
    if isinstance(answer, Result):
        return _finish(tool, context, answer, None)
    if not isinstance(answer, ToolError):
        answer = ToolError(
            "bad_response", f"{tool.name} answered with something that is not a result. Use another tool."
        )
    failed = Result(summary=answer.message, data=answer.data, status="error", hints=answer.hints)
    return _finish(tool, context, failed, answer)


def _finish(tool: Tool, context: ToolContext, result: Result, error: ToolError | None) -> Outcome:
    tidier = Tidier()
    try:
        data = tidier.value(result.data)
    except TypeError as unreadable:
        log.warning("%s: %s", tool.name, unreadable)
        return _envelope(tool, context, ToolError("bad_response", f"{tool.name}'s answer could not be read."))
    if not isinstance(data, dict):
        data = {"value": data}
    message = tidier.text(result.summary, MESSAGE_CHARACTERS)
    summary = message if len(message) <= SUMMARY_CHARACTERS else message[: SUMMARY_CHARACTERS - 1] + "…"
    envelope: dict[str, Any] = {
        "status": result.status,
        "evidence_id": context.evidence_id[:40],
        "source": tidier.value(result.source),
        "asked": tidier.value(result.asked),
        "summary": summary,
        "data": data,
        "truncation": tidier.value(result.truncation) or {"truncated": False},
        "warnings": [tidier.text(line, LINE_CHARACTERS) for line in result.warnings[:MOST_SENTENCES]],
        "hints": [tidier.text(line, LINE_CHARACTERS) for line in result.hints[:MOST_SENTENCES]],
        "error": None if error is None else _error(error, message),
    }
    envelope["warnings"] += _notes(tidier)
    limit = max(SMALLEST_LIMIT, min(HARD_LIMIT, tool.output_limit))
    text = _bounded(envelope, limit)
    return Outcome(text, error is not None, summary, error.kind if error else "")


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
    """The envelope as JSON of at most `limit` characters: data gives way first, then hints and the rest."""
    text = dumps(envelope)
    if len(text) <= limit:
        return text
    envelope["truncation"] = {**envelope["truncation"], "truncated": True}
    note = (
        f"The result was cut to {limit:,} characters. Narrow the question, or page with cursor, for the rest."
    )
    envelope["warnings"].append(note)
    for part in ("data", "source", "asked", "truncation"):
        text = dumps(envelope)
        if len(text) <= limit:
            return text
        room = max(2, limit - (len(text) - len(dumps(envelope[part]))))
        envelope[part], _ = fit(envelope[part], room)
    for part in ("hints", "warnings"):
        while len(dumps(envelope)) > limit and envelope[part]:
            envelope[part].pop(0)
    text = dumps(envelope)
    if len(text) > limit:  # only a message of many escaped characters can still be too long
        envelope["summary"] = middle_cut(envelope["summary"], 120)
        if envelope["error"]:
            envelope["error"]["message"] = envelope["summary"]
        text = dumps(envelope)
    return text
