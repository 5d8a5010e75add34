"""The only way to run a tool: whatever it does, the caller gets a bounded, well-formed answer in time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tools import cards, envelope, probing, rechecking, retrying, schema
from tools.base import Finding, Outcome, Result, Seen, Tool, ToolContext, ToolError
from tools.breaker import Breakers, Condition, Verdict
from tools.clock import Clock
from tools.deadlines import INTERNAL, LEFT, LeftBehind, Wait, always, forget

log = logging.getLogger(__name__)

MOST_ABANDONED = 8  # calls of one tool that may hang before new ones are refused
_FAILED = frozenset({"unavailable", "timeout", "bad_response"})
_UNCLEAR = frozenset(  # may have been said without asking the backend
    {LEFT, "internal", "not_configured", "invalid_argument", "unknown_service", "unknown_metric", "conflict"}
)


@dataclass(frozen=True)
class Caller:
    """Who waits for an answer.

    `is_wanted` is asked twice a second while a tool runs, on the caller's thread; once it says no, the tool
    is left behind as at its deadline. `too_late` gets what a change that was left behind answers after all,
    on the thread of the tool.
    """

    is_wanted: Callable[[], bool] = always
    too_late: Callable[[Outcome], None] = forget


@dataclass(frozen=True)
class _Ended:
    """The end of one attempt: its outcome, and the failure when the tool itself reported one."""

    outcome: Outcome
    error: ToolError | None = None


class Boundary:
    """Runs tools, and remembers which backends fail and which calls hang. One per process; thread-safe."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._breakers = Breakers(self._clock)
        self._left_behind = LeftBehind()

    def call(
        self,
        tool: Tool,
        arguments: object,
        context: ToolContext,
        caller: Caller = Caller(),
    ) -> Outcome:
        """Run the tool and return its envelope as JSON text. Never raises, and returns by its deadline.

        A read that fails in passing is tried again within the deadline; anything else runs once.
        """
        try:
            refusal = self._refusal(tool, arguments)
            if refusal is None:
                parsed = schema.parsed(tool.arguments_model, arguments)
                return self._attempts(tool, parsed, context, caller)
        except Exception:  # the last net, before anything ran: no thread could be started, for example
            log.exception("%s could not be started", tool.name)
            refusal = ToolError("internal", INTERNAL)
        return envelope.of_failure(tool, context, refusal)

    def preview(self, tool: Tool, arguments: object, context: ToolContext) -> dict[str, Any]:
        """The approval card of a call, from a dry run. Never raises: `problem` says what went wrong.

        `problem_kind` is the kind of that error. Every text is visible and one line.
        """
        card = cards.empty(tool, arguments, context)
        try:
            return card | self._dry_run(tool, arguments, context, card)
        except ToolError as error:
            return card | cards.problem(error)
        except Exception:
            log.exception("the dry run of %s could not be started", tool.name)
            return card | cards.problem(ToolError("internal", INTERNAL))

    def probe(self, tool: Tool, arguments: object, context: ToolContext) -> probing.Probed:
        """What became of a call whose answer was lost, as the tool's probe says. Never raises.

        The probe runs like a read; one that fails, hangs or answers with something else cannot tell.
        """
        said: list[Finding] = []
        return probing.probed(self.call(probing.as_read(tool, said), arguments, context), said)

    def recheck(self, tool: Tool, arguments: object, context: ToolContext) -> rechecking.Rechecked:
        """Whether the effect of a call that had worked still holds, as the tool says. Never raises."""
        said: list[Seen] = []
        return rechecking.rechecked(self.call(rechecking.as_read(tool, said), arguments, context), said)

    def health(self) -> dict[str, dict[str, Any]]:
        """How the backends are: {name: {state, failures, opened_at, hanging}}, ready for JSON.

        `state` is closed, open or half_open; `failures` are those in a row; `hanging` counts calls that
        were left behind at their deadline and still run. A tool without a backend stands under its name.
        """
        conditions = self._breakers.conditions()
        hanging = self._left_behind.by_backend()
        unknown = Condition("closed", 0, "")
        return {
            name: asdict(conditions.get(name, unknown)) | {"hanging": hanging.get(name, 0)}
            for name in sorted(conditions.keys() | hanging.keys())
        }

    def _refusal(self, tool: Tool, arguments: object) -> ToolError | None:
        wrong = invalid_arguments(tool, arguments)
        if wrong:
            return ToolError(
                "invalid_argument", f"{wrong} Nothing was run; call {tool.name} again with that put right."
            )
        hanging = self._left_behind.hanging(tool)
        if hanging >= MOST_ABANDONED:
            return ToolError(
                "unavailable",
                f"{tool.name} does not answer: {hanging} earlier calls still hang. Use another tool.",
            )
        return None

    def _attempts(
        self, tool: Tool, arguments: dict[str, Any], context: ToolContext, caller: Caller
    ) -> Outcome:
        """Run it until it answers or another attempt makes no sense."""
        until = self._clock.seconds() + tool.deadline_seconds
        changes = tool.effect != "read"
        attempt = 0
        last: _Ended | None = None

        def late(answer: _Ended | ToolError) -> None:
            if isinstance(answer, ToolError):
                answer = _Ended(envelope.of_failure(tool, context, answer), answer)
            if changes:
                caller.too_late(answer.outcome)

        while True:
            attempt += 1
            left = until - self._clock.seconds()
            job = _job(tool, context, arguments, attempt)
            wait = Wait(left, caller.is_wanted, late)
            answer = self._attempt(tool, job, wait, changes=changes)
            if isinstance(answer, _Refused):
                return last.outcome if last else envelope.of_failure(tool, context, answer.error)
            if isinstance(answer, ToolError):
                notes = retrying.note(attempt, answered=False)
                answer = _Ended(envelope.of_failure(tool, context, answer, notes), answer)
            if answer.error is None or changes:
                return answer.outcome
            pause = retrying.pause_before_next(answer.error, attempt, self._clock.chance())
            if pause is None or pause >= until - self._clock.seconds():
                return answer.outcome
            last = answer
            self._clock.sleep(pause)

    def _dry_run(
        self, tool: Tool, arguments: object, context: ToolContext, card: dict[str, Any]
    ) -> dict[str, Any]:
        dry_run = tool.dry_run
        if dry_run is None:
            raise ToolError("internal", f"{tool.name} has no dry run.")
        refusal = self._refusal(tool, arguments)
        if refusal is not None:
            raise refusal
        parsed = schema.parsed(tool.arguments_model, arguments)
        drawn = self._attempt(
            tool,
            lambda: cards.filled(dry_run(context, **parsed), card),
            Wait(tool.deadline_seconds),
            changes=False,
        )
        if isinstance(drawn, _Refused):
            raise drawn.error
        if isinstance(drawn, ToolError):
            raise drawn
        return drawn

    def _attempt[Answer](
        self, tool: Tool, job: Callable[[], Answer], wait: Wait, *, changes: bool
    ) -> Answer | ToolError | _Refused:
        """One attempt under the breaker of its backend, or the refusal of a breaker that is open."""
        if not tool.backend:
            return self._left_behind.within(tool, job, wait, changes=changes)
        granted = self._breakers.admit(tool.backend)
        if isinstance(granted, float):
            return _Refused(_left_alone(tool, granted))
        verdict: Verdict = "unclear"
        try:
            answer = self._left_behind.within(tool, job, wait, changes=changes)
            verdict = _verdict(answer)
            return answer
        finally:
            self._breakers.report(granted, verdict)


def invalid_arguments(tool: Tool, arguments: object) -> str:
    """ "" when the arguments fit the tool's schema, else the sentence that tells the model what to change."""
    return schema.problem(tool.arguments_model, tool.input_schema, arguments)


_of_this_process = Boundary()
call = _of_this_process.call
preview = _of_this_process.preview
probe = _of_this_process.probe
recheck = _of_this_process.recheck
health = _of_this_process.health


@dataclass(frozen=True)
class _Refused:
    """Nothing was run: the circuit of the backend is open."""

    error: ToolError


def _left_alone(tool: Tool, seconds: float) -> ToolError:
    wait = math.ceil(seconds)
    return ToolError(
        "unavailable",
        f"The backend {tool.backend} kept failing and is left alone for now. Nothing was run. Use another "
        f"source, or try again in {wait} s.",
        retryable=True,
        retry_after_s=wait,
    )


def _verdict(answer: object) -> Verdict:
    """What the end of an attempt says about the backend."""
    error = answer if isinstance(answer, ToolError) else getattr(answer, "error", None)
    if error is None:
        return "answered"
    if error.kind in _FAILED:
        return "failed"
    return "unclear" if error.kind in _UNCLEAR else "answered"


def _job(tool: Tool, context: ToolContext, arguments: dict[str, Any], attempt: int) -> Callable[[], _Ended]:
    """Run the tool and prepare what it returned. An exception means that nobody knows what it did."""

    def job() -> _Ended:
        try:
            returned = tool.function(context, **arguments)
        except ToolError as error:
            notes = retrying.note(attempt, answered=False)
            return _Ended(envelope.of_failure(tool, context, error, notes), error)
        if isinstance(returned, Result):
            try:
                notes = retrying.note(attempt, answered=True)
                return _Ended(envelope.of_result(tool, context, returned, notes))
            except TypeError as unreadable:
                log.warning("%s: %s", tool.name, unreadable)
        said = f"{tool.name} answered with something that cannot be read. Use another tool."
        # A mistake of the tool, not of its backend: it would be made again.
        broken = ToolError("bad_response", said, may_have_acted=True)
        return _Ended(envelope.of_failure(tool, context, broken))

    return job
