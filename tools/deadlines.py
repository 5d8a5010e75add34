"""A deadline that really returns: what takes longer is left behind, counted, and heard if it answers."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tools import threads
from tools.base import Tool, ToolError

log = logging.getLogger(__name__)

LEFT: Final = "abandoned"  # the kind of a failure that only says that nobody waited for the answer
INTERNAL = "The tool failed unexpectedly; its operator has the details. Use another tool or go on without it."


def always() -> bool:
    """Somebody waits until the deadline."""
    return True


def forget(answer: object) -> None:
    """What comes too late is of no use."""


@dataclass(frozen=True)
class Wait:
    """How long one attempt is waited for, whether anybody still wants it, and who gets what comes later.

    `is_wanted` is asked twice a second on the caller's thread, and means yes when it fails; `late` is called
    on the thread of the tool.
    """

    seconds: float
    is_wanted: Callable[[], bool] = always
    late: Callable[[Any], None] = forget


class LeftBehind:
    """Runs jobs in threads of their own and knows those that were left behind. Thread-safe."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], weakref.WeakSet[threads.Job]] = {}
        self._lock = threading.Lock()

    def hanging(self, tool: Tool) -> int:
        """How many calls of this tool were left behind and still run."""
        with self._lock:
            return sum(job.is_running for job in self._jobs.get((tool.backend, tool.name), ()))

    def by_backend(self) -> dict[str, int]:
        """The same for each backend that has had such calls; a tool without one stands under its name."""
        with self._lock:
            hanging: dict[str, int] = {}
            for (backend, name), jobs in self._jobs.items():
                key = backend or name
                hanging[key] = hanging.get(key, 0) + sum(job.is_running for job in jobs)
        return hanging

    def within[Answer](
        self, tool: Tool, job: Callable[[], Answer], wait: Wait, *, changes: bool
    ) -> Answer | ToolError:
        """What the job made in time; a ToolError when it raised or is left behind."""
        answers: list[Answer | ToolError] = []
        left_behind = threading.Event()

        def work() -> None:
            answer = _answered(tool, job, changes)
            with self._lock:
                answers.append(answer)
                late = left_behind.is_set()
            if late:
                _say_late(tool, wait, answer)

        running = threads.start(work)
        wanted = running.wait(wait.seconds, partial(_is_wanted, tool, wait))
        with self._lock:
            if answers:
                return answers[0]
            left_behind.set()
            self._jobs.setdefault((tool.backend, tool.name), weakref.WeakSet()).add(running)
        if not wanted:
            return ToolError(LEFT, "Nobody waits for this call any more.", may_have_acted=changes)
        return ToolError("timeout", _timeout(tool, changes), retryable=not changes, may_have_acted=changes)


def _answered[Answer](tool: Tool, job: Callable[[], Answer], changes: bool) -> Answer | ToolError:
    try:
        return job()
    except ToolError as error:
        return error
    except BaseException:  # SystemExit in a tool must not end anything but the call
        log.exception("%s failed", tool.name)
        return ToolError("internal", INTERNAL, may_have_acted=changes)


def _is_wanted(tool: Tool, wait: Wait) -> bool:
    """A question that fails is no reason to drop what may be changing something at this moment."""
    try:
        return wait.is_wanted()
    except Exception:
        log.exception("nobody knows whether %s is still waited for", tool.name)
        return True


def _say_late(tool: Tool, wait: Wait, answer: object) -> None:
    try:
        wait.late(answer)
    except Exception:
        log.exception("what %s answered too late could not be kept", tool.name)


def _timeout(tool: Tool, changes: bool) -> str:
    if changes:
        advice = "It may or may not have taken effect. Do not repeat it; read the current state first."
    else:
        advice = "Ask for less (a shorter time range, one service), or use another tool."
    return f"{tool.name} did not answer within {tool.deadline_seconds:g} s. {advice}"
