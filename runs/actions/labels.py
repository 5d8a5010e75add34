"""What people write on runs: tags and notes. They are for people; no agent reads them.

A tag may have a budget: what its runs used moves with the tag, in the same transaction.
"""

from __future__ import annotations

from runs.actions.budgets import let_go_on_where_room, release_from
from runs.actions.change import change
from runs.actions.errors import ActionError
from runs.actions.ledger import follow_tag
from runs.actions.tags import MOST_TAGS, checked_tag
from runs.models import RunNote, RunTag

MAX_NOTE_CHARACTERS = 4_000


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
        follow_tag(current, tag, joins=True)
        current.event("run.tagged", tag=tag)
        current.counts_again = True
    return True


def untag_run(*, run_id: int, name: str, actor: str) -> bool:
    """Take a tag off; False when the run does not have it. Runs that its budget held back may go on."""
    tag = name.strip().lower()
    with change(run_id, actor=actor) as current:
        removed, _ = RunTag.objects.filter(run=current.run, name=tag).delete()
        if not removed:
            return False
        roomier = follow_tag(current, tag, joins=False)
        current.event("run.untagged", tag=tag)
        release_from(current, tag)
        current.counts_again = True
    let_go_on_where_room(roomier, actor=actor, why=f"{actor} took the tag {tag} off another run.")
    return True


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
