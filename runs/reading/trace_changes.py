"""What of a trace differs from what a live page was sent before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runs.reading.trace import Section, Trace
from runs.reading.trace_rows import Row

STEPS = "runs/run.html#steps"  # the list with all sections
SECTION = "runs/section.html"
AXIS = "runs/section.html#axis"
TURN = "runs/turn.html"
WHOLE = 0.5  # of its turns: when more of a section changed, it is sent as one


@dataclass(frozen=True)
class Changed:
    """A part to send: the template it is drawn with, its section, and the row when it is one turn."""

    template: str
    section: Section | None = None
    row: Row | None = None


class TraceMemory:
    """What one live page knows of the trace. Asked again, it says what is new."""

    def __init__(self) -> None:
        self._sent: dict[int, tuple[Any, bool, dict[int, Row]]] | None = None

    def changes(self, trace: Trace) -> list[Changed]:
        """The parts that differ by now, in the order in which they are to be put in place.

        At first, and as long as there are no steps, that is the whole list; later turn after turn, so that
        a long section is not drawn again for every step.
        """
        before = self._sent
        read = [section for section in trace.sections if section.rows is not None]
        self._sent = (before or {}) | {section.number: _known(section) for section in read}
        if not read and before is not None:
            return []
        if not before:
            return [Changed(STEPS)]
        return [changed for section in read for changed in _section(section, before.get(section.number))]


def _known(section: Section) -> tuple[Any, bool, dict[int, Row]]:
    return _axis(section), section.is_open, {row.pk: row for row in section.rows or ()}


def _axis(section: Section) -> Any:
    """What the axis looks like; while idle it stands still, whatever the clock says."""
    scale = section.scale
    if scale is None:
        return None
    gaps = len(scale.gaps) if scale.live else scale.gaps
    return scale.width, gaps, scale.cap_seconds, scale.lost_seconds, scale.start


def _section(section: Section, before: tuple[Any, bool, dict[int, Row]] | None) -> list[Changed]:
    if before is None or before[1] != section.is_open:
        return [Changed(SECTION, section)]
    axis, _, known = before
    rows = section.rows or ()
    new = [row for row in rows if known.get(row.pk) != row]
    if len(new) > max(2.0, WHOLE * len(rows)):
        return [Changed(SECTION, section)]
    changed = [Changed(AXIS, section)] if axis != _axis(section) else []
    return changed + [Changed(TURN, section, row) for row in new]
