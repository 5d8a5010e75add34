"""The only way to run a tool: whatever it does, the caller gets a bounded, well-formed answer in time."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from django.db import connections

from tools import schema
from tools.base import HEADLINE_CHARACTERS, Outcome, Result, Tool, ToolContext, ToolError
from tools.bounding import HARD_LIMIT, LINE_CHARACTERS, Tidier, dumps, fit, middle_cut

log = logging.getLogger(__name__)

MOST_ABANDONED = 8  # calls of one tool that may hang before new ones are refused
MOST_SENTENCES = 12
SUMMARY_CHARACTERS = 300
MESSAGE_CHARACTERS = 1_500
SMALLEST_LIMIT = 2_000
SIDE_BUDGET = 8_000  # characters looked at in what an envelope says besides data
_abandoned: dict[str, weakref.WeakSet[threading.Thread]] = {}
_abandoned_lock = threading.Lock()


def invalid_arguments(tool: Tool, arguments: object) -> str:
    """ "" when the arguments fit the tool's schema, else the sentence that tells the model what to change."""
    return schema.problem(tool.arguments_model, tool.input_schema, arguments)


def call(tool: Tool, arguments: object, context: ToolContext) -> Outcome:
    """Run the tool and return its envelope as JSON text. Never raises, and returns by the tool's deadline."""
    changes = tool.effect != "read"
    answer = _run(tool, arguments, lambda parsed: _answer(tool, context, parsed), changes=changes)
    return _failure(tool, context, answer) if isinstance(answer, ToolError) else answer


def preview(tool: Tool, arguments: object, context: ToolContext) -> dict[str, Any]:
    """The approval card of a call, from a dry run. Never raises: `problem` says what went wrong.

    `problem_kind` is the kind of that error. Every text is visible and one line.
    """
    card = _empty_card(tool, arguments, context)
    dry_run = tool.dry_run
    if dry_run is None:
        return card | _problem(ToolError("internal", f"{tool.name} has no dry run."))
    drawn = _run(tool, arguments, lambda parsed: _drawn(dry_run(context, **parsed), card), changes=False)
    return card | (_problem(drawn) if isinstance(drawn, ToolError) else drawn)


_INTERNAL = (
    "The tool failed unexpectedly; its operator has the details. Use another tool or go on without it."
)


def _empty_card(tool: Tool, arguments: object, context: ToolContext) -> dict[str, Any]:
    headline = tool.headline(arguments) if isinstance(arguments, dict) else tool.name
    return {
        "headline": Tidier(one_line=True).text(headline),
        "object": "",
        "environment": context.environment,
        "action": tool.name.replace("_", " "),
        "chips": [],
        "changes": [],
        "reversible": False,
        "effect_if_rejected": "Nothing changes.",
        "problem": "",
        "problem_kind": "",
    }


def _drawn(drawn: object, card: dict[str, Any]) -> dict[str, Any]:
    """What a dry run said, as far as the card has a place of that type for it."""
    if not isinstance(drawn, Mapping):
        raise ToolError("bad_response", "The dry run returned something that is not a card.")
    tidier = Tidier(one_line=True)
    whole = tidier.value({key: drawn[key] for key in card if key in drawn})
    tidy = fit(whole, HARD_LIMIT)
    if tidier.dropped or tidy != whole:
        raise ToolError(
            "bad_response", "The dry run describes more than a card can show, so not all of it could be seen."
        )
    tidy = {key: value for key, value in tidy.items() if type(value) is type(card[key])}
    if "headline" in tidy:
        tidy["headline"] = tidy["headline"][:HEADLINE_CHARACTERS]
    return tidy


def _problem(error: ToolError) -> dict[str, Any]:
    return {"problem": Tidier(one_line=True).text(error.message), "problem_kind": error.kind}


def _run[Answer](
    tool: Tool, arguments: object, job: Callable[[dict[str, Any]], Answer], *, changes: bool
) -> Answer | ToolError:
    """What the job made of the parsed arguments, or the ToolError it deserves. Never raises."""
    try:
        refusal = _refusal(tool, arguments)
        if refusal is not None:
            return refusal
        parsed = schema.parsed(tool.arguments_model, arguments)
        return _within_deadline(tool, lambda: job(parsed), changes=changes)
    except Exception:  # the last net, before anything ran: no thread could be started, for example
        log.exception("%s could not be started", tool.name)
        return ToolError("internal", _INTERNAL)


def _refusal(tool: Tool, arguments: object) -> ToolError | None:
    wrong = invalid_arguments(tool, arguments)
    if wrong:
        return ToolError(
            "invalid_argument", f"{wrong} Nothing was run; call {tool.name} again with that put right."
        )
    hanging = _hanging(tool.name)
    if hanging >= MOST_ABANDONED:
        return ToolError(
            "unavailable",
            f"{tool.name} does not answer: {hanging} earlier calls still hang. Use another tool.",
        )
    return None


def _within_deadline[Answer](tool: Tool, job: Callable[[], Answer], *, changes: bool) -> Answer | ToolError:
    answer: list[Answer | ToolError] = []

    def work() -> None:
        try:
            answer.append(job())
        except ToolError as error:
            answer.append(error)
        except BaseException:  # SystemExit in a tool must not end anything but the call
            log.exception("%s failed", tool.name)
            answer.append(ToolError("internal", _INTERNAL, may_have_acted=changes))
        finally:
            connections.close_all()  # connections belong to their thread, and this one ends

    thread = threading.Thread(target=work, name=f"tool {tool.name}", daemon=True)
    thread.start()
    thread.join(tool.deadline_seconds)
    if answer:
        return answer[0]
    with _abandoned_lock:
        _abandoned.setdefault(tool.name, weakref.WeakSet()).add(thread)
    return ToolError("timeout", _timeout(tool, changes), retryable=not changes, may_have_acted=changes)


def _timeout(tool: Tool, changes: bool) -> str:
    if changes:
        advice = "It may or may not have taken effect. Do not repeat it; read the current state first."
    else:
        advice = "Ask for less (a shorter time range, one service), or use another tool."
    return f"{tool.name} did not answer within {tool.deadline_seconds:g} s. {advice}"


def _hanging(name: str) -> int:
    with _abandoned_lock:
        return sum(thread.is_alive() for thread in _abandoned.get(name, ()))


def _answer(tool: Tool, context: ToolContext, arguments: dict[str, Any]) -> Outcome:
    """Run the tool and prepare what it returned. An exception means that nobody knows what it did."""
    try:
        returned = tool.function(context, **arguments)
    except ToolError as error:
        return _failure(tool, context, error)
    if isinstance(returned, Result):
        try:
            return _outcome(tool, context, returned, None)
        except TypeError as unreadable:
            log.warning("%s: %s", tool.name, unreadable)
    said = f"{tool.name} answered with something that cannot be read. Use another tool."
    return _failure(tool, context, ToolError("bad_response", said, may_have_acted=True))


def _failure(tool: Tool, context: ToolContext, error: ToolError) -> Outcome:
    failed = Result(summary=error.message, data=error.data, status="error", hints=error.hints)
    try:
        return _outcome(tool, context, failed, error)
    except Exception:  # what it says about certainty must not get lost with its data
        log.exception("the failure of %s could not be described in full", tool.name)
        return _outcome(tool, context, replace(failed, data={}, hints=()), error)


def _outcome(tool: Tool, context: ToolContext, result: Result, error: ToolError | None) -> Outcome:
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
    envelope["warnings"] += _notes(tidier)
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
