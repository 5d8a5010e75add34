"""The live page of one run: what is new of it is read and drawn once for all who see the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from uuid import UUID

from django.contrib.auth.models import User
from django.template.loader import render_to_string

from runs.access import may_decide, may_start
from runs.consumers import GONE, Closed, LiveConsumer
from runs.models import Run
from runs.parameters import number_of, step_of
from runs.reading.run_page import RunPageView, read_live_page
from runs.reading.trace import Section, find_run, has_asked
from runs.reading.trace_changes import TraceMemory
from runs.reading.trace_rows import Row
from runs.sharing import shared

SHORTEST_REST_SECONDS = 0.01


class RunConsumer(LiveConsumer):
    """The page of one run. The browser says which step it shows; nothing said means: follow."""

    run_pk: int | None = None
    selected: int | None = None

    def prepare(self, parameters: dict[str, str]) -> None:
        self.selected = number_of(parameters.get("step", ""))
        self.talks = parameters.get("view") == "conversation"
        self.memory = TraceMemory()

    def rest_after(self, took: float) -> float:
        """As long as the look took, so that one hint after another leaves half of the time to others.

        What another page has read and drawn already takes no time.
        """
        return min(self.rest_seconds, max(SHORTEST_REST_SECONDS, took))

    def concerns(self, run_ids: Iterable[int]) -> bool:
        return self.run_pk is None or self.run_pk in run_ids

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """`{"step": 7}` shows that step, `{"step": null}` follows the live one. Anything else is ignored."""
        said = step_of(text_data or "")
        if said is not None:
            self.selected = said.step
            self.sent.pop("panel", None)
            self.look_now()

    def frames(self, viewer: User) -> list[str]:
        request_id: UUID = self.scope["url_route"]["kwargs"]["request_id"]
        run = shared.get(("run", request_id), lambda: find_run(request_id))
        if run is None:
            raise Closed(GONE)
        self.run_pk = run.pk
        key = ("page", run.pk, self.selected, self.talks, _standing(run, viewer))
        seen = shared.get(key, lambda: RunLook(run, self.selected, self.talks, viewer))
        frames = [
            seen.drawn(changed.template, changed.section, changed.row)
            for changed in self.memory.changes(seen.page.trace)
        ]
        for part in ("head", "notice", "controls", "verdict", "panel"):
            html = seen.drawn(f"runs/run.html#{part}")
            if self.sent.get(part) != html:
                self.sent[part] = html
                frames.append(html)
        return frames


def _standing(run: Run, viewer: User) -> Hashable:
    """What the page of this run depends on of who looks: the person, as soon as it asks somebody."""
    if has_asked(run):
        return viewer.pk
    return bool(may_start(viewer)), bool(may_decide(viewer))


class RunLook:
    """The page of a run as it is at one moment, for all who see the same of it; each part is drawn once."""

    def __init__(self, run: Run, selected: int | None, talks: bool, viewer: User) -> None:
        self.page: RunPageView = read_live_page(run, selected=selected, talks=talks, viewer=viewer)
        self._viewer = viewer
        self._drawn: dict[Hashable, str] = {}

    def drawn(self, template: str, section: Section | None = None, row: Row | None = None) -> str:
        """This part as a frame; a section and a turn of it for the parts of the trace."""
        key = (template, section and section.number, row and row.pk)
        if key not in self._drawn:
            context = {"page": self.page, "viewer": self._viewer, "section": section, "row": row, "oob": True}
            self._drawn[key] = render_to_string(template, context)
        return self._drawn[key]
