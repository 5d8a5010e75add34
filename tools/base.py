"""What a tool is: a typed function, its schema, its effect, and the result it hands back.

A tool author writes a function whose first parameter is the context and whose other parameters are
keyword-only and typed, and decorates it with `tool`. Name, description and JSON schema come from it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from tools import schema
from tools.redaction import visible

HEADLINE_CHARACTERS = 200
Effect = Literal["read", "write", "destructive"]
Idempotency = Literal["key", "reconcile", "none"]
Status = Literal["ok", "no_data", "partial", "error"]
ErrorKind = Literal[
    "invalid_argument",
    "unknown_service",
    "unknown_metric",
    "not_configured",
    "auth",
    "forbidden",
    "rate_limited",
    "timeout",
    "unavailable",
    "bad_response",
    "too_expensive",
    "stale_precondition",
    "conflict",
    "internal",
    "abandoned",
]


@dataclass(frozen=True)
class ToolContext:
    """Where and for whom a call runs.

    `world` is the key of the estate world that this run investigates, `idempotency_key` is the same for
    every attempt of one call, `evidence_id` (such as "ev_07") names the result for later citation.
    """

    environment: str
    world: str
    idempotency_key: str
    evidence_id: str


@dataclass(frozen=True)
class Result:
    """What a tool function returns. `data` may hold untrusted text; `summary` and `hints` must not."""

    summary: str
    data: Mapping[str, Any] = field(default_factory=dict)
    status: Status = "ok"
    source: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    truncation: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Happened:
    """A probe's answer: the call took effect, and this is what the tool would have answered."""

    result: Result


@dataclass(frozen=True)
class DidNotHappen:
    """A probe's answer: the call has had no effect, and what was started of it can have none any more."""

    evidence: str


@dataclass(frozen=True)
class CannotTell:
    """A probe's answer: what is there now fits both. `evidence` tells a person what was seen."""

    evidence: str


@dataclass(frozen=True)
class Seen:
    """A later look at a change that had worked: whether its effect still holds, and what is there now."""

    holds: bool
    sentence: str


Finding = Happened | DidNotHappen | CannotTell


class ToolError(Exception):
    """A failure the model can act on: `kind` says what, `message` says what to do about it.

    A tool that raises it did not act, unless it says with `may_have_acted` that this is not certain.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        data: Mapping[str, Any] | None = None,
        hints: tuple[str, ...] = (),
        retryable: bool = False,
        retry_after_s: float | None = None,
        may_have_acted: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message
        self.data = dict(data or {})
        self.hints = hints
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.may_have_acted = may_have_acted


@dataclass(frozen=True)
class Outcome:
    """The end of one call. `text` is the exact JSON envelope for the tool_result, already bounded.

    `may_have_acted` is about failures: nobody knows whether the call changed something. It is false for a
    result, for a refusal that came before anything was done, and always for a tool that only reads.
    """

    text: str
    is_error: bool
    summary: str
    error_kind: str
    may_have_acted: bool


@dataclass(frozen=True)
class Tool:
    """One thing an agent can do. `version` changes whenever the model would see a different tool.

    `backend` names what its calls depend on; they share a circuit breaker. "": on nothing that could fail.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    effect: Effect
    idempotency: Idempotency
    deadline_seconds: float
    version: str
    output_limit: int
    function: Callable[..., Result] = field(repr=False)
    arguments_model: type[BaseModel] = field(repr=False)
    describe: Callable[[dict[str, Any]], str] = field(repr=False)
    dry_run: Callable[..., dict[str, Any]] | None = field(repr=False, default=None)
    probe: Callable[..., Finding] | None = field(repr=False, default=None)
    recheck: Callable[..., Seen] | None = field(repr=False, default=None)
    backend: str = ""

    def definition(self) -> dict[str, Any]:
        """Name, description and schema, ready to be sent to the model as JSON."""
        return {"name": self.name, "description": self.description, "input_schema": self.input_schema}

    def headline(self, arguments: dict[str, Any]) -> str:
        """One line of at most 200 visible characters about this call. Never fails on any arguments."""
        try:
            line = visible(self.describe(arguments)[: 10 * HEADLINE_CHARACTERS])
        except Exception:  # a headline must never stop a trace from being shown
            line = ""
        return " ".join(line.split())[:HEADLINE_CHARACTERS].strip() or self.name


def tool(
    *,
    effect: Effect,
    describe: Callable[[dict[str, Any]], str],
    idempotency: Idempotency = "none",
    deadline_seconds: float = 20.0,
    output_limit: int = 8_000,
    dry_run: Callable[..., dict[str, Any]] | None = None,
    probe: Callable[..., Finding] | None = None,
    recheck: Callable[..., Seen] | None = None,
    backend: str = "",
) -> Callable[[Callable[..., Result]], Tool]:
    """Make a Tool of a function `f(context, *, typed=...) -> Result`.

    `describe` turns arguments into the one-line headline. `dry_run` takes what the function takes and
    returns the approval card; every destructive tool needs one. `probe` takes the same, only reads, and
    says whether that call took effect; it belongs to idempotency "reconcile". `recheck` takes the same, only
    reads, and says some time after a call whose `data.verification.passed` is true whether that still holds.
    """

    def build(function: Callable[..., Result]) -> Tool:
        name = function.__name__
        if effect == "destructive" and dry_run is None:
            raise TypeError(f"{name} is destructive, so it needs a dry_run for its approval card")
        if (idempotency == "reconcile") != (probe is not None) or (probe is not None and effect == "read"):
            raise TypeError(
                f"{name}: a probe and idempotency='reconcile' go together, on a tool that changes something"
            )
        description = inspect.cleandoc(function.__doc__ or "")
        if not description:
            raise TypeError(f"{name} needs a docstring: it is what the model reads")
        model = schema.arguments_model(function)
        input_schema = schema.input_schema(model)
        return Tool(
            name=name,
            description=description,
            input_schema=input_schema,
            effect=effect,
            idempotency=idempotency,
            deadline_seconds=deadline_seconds,
            version=_version(name, description, input_schema),
            output_limit=output_limit,
            function=function,
            arguments_model=model,
            describe=describe,
            dry_run=dry_run,
            probe=probe,
            recheck=recheck,
            backend=backend,
        )

    return build


def _version(name: str, description: str, input_schema: dict[str, Any]) -> str:
    text = json.dumps([name, description, input_schema], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
