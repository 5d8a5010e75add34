"""A whole result of a search: for acting on all of its runs, and as a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import batched

from runs.models import Run
from runs.reading.export import run_log
from runs.reading.labels import read_labels
from runs.reading.runs import RunQuery, find_runs

MOST_CHANGED = 500  # runs that are tagged or cancelled at once
MOST_EXPORTED = 2_000
ALL = 10_000  # windows: as far as it goes


def result_of(query: RunQuery, *, most: int, now: datetime) -> list[int]:
    """The runs of a search in their order, up to `most` and one: then there are more."""
    if query.error is not None:
        return []
    return find_runs(query.first(), most + 1, now=now, windows=ALL).pks


def json_lines(pks: list[int]) -> Iterator[str]:
    """Each run as one line of JSON in ASCII: its log, its tags and its notes."""
    for some in batched(pks, 20, strict=False):
        runs = {run.pk: run for run in Run.objects.filter(pk__in=some)}
        for run in (runs[pk] for pk in some if pk in runs):
            labels = read_labels(run)
            said = [
                {"by": note.written_by, "at": note.written_at.isoformat(), "text": note.text}
                for note in labels.notes
            ]
            log = run_log(run) | {"tags": [tag.name for tag in labels.tags], "notes": said}
            yield json.dumps(log, ensure_ascii=True) + "\n"
