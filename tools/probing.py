"""What became of a call whose answer was lost: the probe of its tool, asked as a read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from tools.base import CannotTell, DidNotHappen, Finding, Happened, Outcome, Result, Tool, ToolContext

Said = Literal["happened", "did_not_happen", "cannot_tell"]
FOUND = "The answer of the call was lost. A probe found afterwards that it took effect, and wrote this one."
_WORDS: dict[type[Finding], Said] = {
    Happened: "happened",
    DidNotHappen: "did_not_happen",
    CannotTell: "cannot_tell",
}


@dataclass(frozen=True)
class Probed:
    """What a probe said. `evidence` is one clean sentence; `outcome` is that of a call that happened."""

    said: Said
    evidence: str
    outcome: Outcome | None = None


def as_read(tool: Tool, said: list[Finding]) -> Tool:
    """The probe of this tool as a read, which notes in `said` what it finds."""
    return replace(tool, effect="read", function=_noting(tool.probe, said))


def probed(outcome: Outcome, said: list[Finding]) -> Probed:
    """What to make of the end of that read. One that failed, or hung, cannot tell."""
    if outcome.is_error or not said:
        return Probed("cannot_tell", f"The probe failed. {outcome.summary}")
    word = _WORDS[type(said[-1])]
    return Probed(word, outcome.summary, outcome if word == "happened" else None)


def _noting(probe: Callable[..., Finding] | None, said: list[Finding]) -> Callable[..., Result]:
    def ask(context: ToolContext, **arguments: Any) -> Result:
        finding = probe(context, **arguments) if probe is not None else CannotTell("The tool has no probe.")
        if isinstance(finding, Happened):
            result = replace(finding.result, warnings=(FOUND, *finding.result.warnings))
        elif isinstance(finding, DidNotHappen | CannotTell):
            result = Result(summary=finding.evidence)
        else:
            raise TypeError(f"a probe returned {type(finding).__name__}")
        said.append(finding)
        return result

    return ask
