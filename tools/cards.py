"""Approval cards: what a dry run says, as visible one-line texts in fixed places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.base import HEADLINE_CHARACTERS, Tool, ToolContext, ToolError
from tools.bounding import HARD_LIMIT, Tidier, fit


def empty(tool: Tool, arguments: object, context: ToolContext) -> dict[str, Any]:
    """A card with nothing on it but what is known without a dry run."""
    headline = tool.headline(arguments) if isinstance(arguments, dict) else tool.name
    return {
        "headline": Tidier(one_line=True).text(headline),
        "object": "",
        "environment": context.environment,
        "action": tool.name.replace("_", " "),
        "chips": [],
        "changes": [],
        "reversible": False,
        # What the decision rests on, by name: when it is another at the start, people are asked again.
        "basis": {},
        "effect_if_rejected": "Nothing changes.",
        "problem": "",
        "problem_kind": "",
    }


def filled(dry_run: object, card: dict[str, Any]) -> dict[str, Any]:
    """What a dry run said, as far as the card has a place of that type for it.

    Raises ToolError(bad_response) for what is no card, or more than a card can show.
    """
    if not isinstance(dry_run, Mapping):
        raise ToolError("bad_response", "The dry run returned something that is not a card.")
    tidier = Tidier(one_line=True)
    whole = tidier.value({key: dry_run[key] for key in card if key in dry_run})
    tidy = fit(whole, HARD_LIMIT)
    if tidier.dropped or tidy != whole:
        raise ToolError(
            "bad_response", "The dry run describes more than a card can show, so not all of it could be seen."
        )
    tidy = {key: value for key, value in tidy.items() if type(value) is type(card[key])}
    if "headline" in tidy:
        tidy["headline"] = tidy["headline"][:HEADLINE_CHARACTERS]
    return tidy


def problem(error: ToolError) -> dict[str, Any]:
    """What a card says about a dry run that failed."""
    return {"problem": Tidier(one_line=True).text(error.message), "problem_kind": error.kind}
