"""What people write on runs: tags and notes. They are for people; no agent reads them."""

from __future__ import annotations

import re

from runs.actions.change import change
from runs.actions.cost_hours import count_again
from runs.actions.errors import ActionError
from runs.models import RunNote, RunTag

MOST_TAGS = 20
MAX_NOTE_CHARACTERS = 4_000
_TAG = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,39}")


def checked_tag(name: str) -> str:
    """The tag as it is stored, in small letters; raises ActionError."""
    tag = name.strip().lower()
    if not _TAG.fullmatch(tag):
        raise ActionError(
            "A tag has up to 40 letters, digits, dots, hyphens and underscores, such as false-alarm."
        )
    return tag


def tag_run(*, run_id: int, name: str, actor: str) -> bool:
    """Put a tag on a run; False when it has it. Raises ActionError."""
    tag = checked_tag(name)
    with change(run_id, actor=actor) as current:
        tags = set(RunTag.objects.filter(run=current.run).values_list("name", flat=True))
        if tag in tags:
            return False
        if len(tags) >= MOST_TAGS:
            raise ActionError(f"A run has at most {MOST_TAGS} tags. Remove one first.")
        RunTag.objects.create(run=current.run, name=tag, added_by=actor, added_at=current.now)
        current.event("run.tagged", tag=tag)
        count_again([run_id])
    return True


def untag_run(*, run_id: int, name: str, actor: str) -> bool:
    """Take a tag off; False when the run does not have it."""
    with change(run_id, actor=actor) as current:
        removed, _ = RunTag.objects.filter(run=current.run, name=name.strip().lower()).delete()
        if removed:
            current.event("run.untagged", tag=name.strip().lower())
            count_again([run_id])
    return bool(removed)


def note_run(*, run_id: int, text: str, actor: str) -> RunNote:
    """Write a note on a run. Raises ActionError when it is empty or too long."""
    text = text.replace("\r\n", "\n").replace("\x00", "").strip()
    if not text:
        raise ActionError("Write what others should know about this run.")
    if len(text) > MAX_NOTE_CHARACTERS:
        raise ActionError(
            f"The note has {len(text):,} characters; at most {MAX_NOTE_CHARACTERS:,} are taken. Shorten it."
        )
    with change(run_id, actor=actor) as current:
        note = RunNote.objects.create(run=current.run, text=text, written_by=actor, written_at=current.now)
        current.event("run.noted", note=note.pk)
    return note
