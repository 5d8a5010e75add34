"""Edits of people: dry run and policy for the arguments they want, then the next revision or a no."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from runs import actions
from runs.actions import Lease, Question, Refusal
from runs.engine import calls
from runs.engine.acts import Act, Record
from runs.models import Edit, Run, Step
from tools import boundary, registry
from tools.base import Tool

Ask = Callable[[dict[str, Any]], Question | Refusal]  # of the preview


def begin(lease: Lease, run: Run, steps: list[Step]) -> Act | None:
    """The act that makes the dry runs of all edits that wait; None when there is none after all."""
    edits = actions.unchecked_edits(run)
    if not edits:
        actions.forget_edits(lease)
        return None
    found = [(edit, registry.find(edit.approval.step.name)) for edit in edits]
    wanted = [(edit, tool, _asking(run, steps, edit, tool)) for edit, tool in found if tool is not None]
    gone = [edit for edit, tool in found if tool is None]

    def act() -> Record:
        previews = [
            boundary.preview(tool, json.loads(edit.arguments), calls.context(run, edit.approval.step))
            for edit, tool, _ in wanted
        ]

        def store() -> None:
            for edit in gone:
                actions.deny_edit(lease, edit, "The tool of this call is not installed any more.")
            for (edit, tool, ask), preview in zip(wanted, previews, strict=True):
                _answer(lease, edit, tool, ask, preview)

        return Record(store)

    return act


def _asking(run: Run, steps: list[Step], edit: Edit, tool: Tool) -> Ask:
    step = steps[edit.approval.step.seq - 1]
    return partial(calls.question_anew, run, step, tool, edit.approval, edit.arguments)


def _answer(lease: Lease, edit: Edit, tool: Tool, ask: Ask, preview: dict[str, Any]) -> None:
    """Open the revision, or say why there is none."""
    step = edit.approval.step
    arguments = json.loads(edit.arguments)
    if tool.version != step.tool_version:
        why = f"{step.name} is another version now, so this call cannot run at all. Reject it."
    elif wrong := boundary.invalid_arguments(tool, arguments) or preview["problem"]:
        why = wrong
    elif isinstance(question := ask(preview), Refusal):
        why = f"Policy does not allow it: {question.message}"
    else:
        actions.open_revision(lease, edit, question, summary=tool.headline(arguments))
        return
    actions.deny_edit(lease, edit, why)
