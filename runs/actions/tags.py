"""The names of tags, and runs that begin with some."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from runs.actions.change import Change
from runs.actions.errors import ActionError
from runs.models import Run, RunTag

MOST_TAGS = 20
_TAG = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,39}")


def checked_tag(name: str) -> str:
    """The tag as it is stored, in small letters; raises ActionError."""
    tag = name.strip().lower()
    if not _TAG.fullmatch(tag):
        raise ActionError(
            "A tag has up to 40 letters, digits, dots, hyphens and underscores, such as false-alarm."
        )
    return tag


def checked_tags(names: Iterable[str]) -> list[str]:
    """The tags of a new run, each once, in order; raises ActionError."""
    tags = sorted({checked_tag(name) for name in names})
    if len(tags) > MOST_TAGS:
        raise ActionError(f"A run has at most {MOST_TAGS} tags. Leave some out.")
    return tags


def begin_with(begun: Change, tags: Sequence[str]) -> None:
    """Inside the change that begins a run, before its first step: it carries these tags.

    It has used nothing, so no budget of a tag has to be told.
    """
    RunTag.objects.bulk_create(
        RunTag(run=begun.run, name=tag, added_by=begun.actor, added_at=begun.now) for tag in tags
    )


def tags_of(run: Run) -> list[str]:
    """The tags that a fork, a follow-up or a continuation of this run begins with."""
    return list(RunTag.objects.filter(run=run).order_by("name").values_list("name", flat=True))
