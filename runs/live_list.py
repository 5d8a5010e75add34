"""The live list: its rows change in place, and what is new is only counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.utils import timezone

from runs.consumers import LOOK_AGAIN_SECONDS, LiveConsumer
from runs.parameters import numbers_of
from runs.reading.facets import read_facets
from runs.reading.run_rows import RunRow, read_rows
from runs.reading.runs import Newest, RunQuery, count_newer
from runs.reading.workers import count_unattended
from runs.sharing import shared

INDEXED_SECONDS = 1.0
COUNT_SECONDS = 2.0  # filters are counted again this often at most, for all who look in one go


class RunListConsumer(LiveConsumer):
    """One open list. A hint says which runs changed: of the rows only those are read again."""

    rest_seconds = 0.1

    def prepare(self, parameters: dict[str, str]) -> None:
        self.query = RunQuery.parse(parameters)
        self.newest = Newest.parse(parameters.get("newest", ""))
        self.pks = numbers_of(parameters.get("rows", ""))
        self._hinted: set[int] = set()
        self._read_all_at = float("-inf")
        self._counted_in = 0  # the stretch of COUNT_SECONDS in which filters were counted for this list

    async def runs_changed(self, event: dict[str, Any]) -> None:
        """Words are found a moment after they were written, so a search looks once more then."""
        await super().runs_changed(event)
        if self.query.conditions.has_text:
            asyncio.get_running_loop().call_later(INDEXED_SECONDS, self.look_now)

    def concerns(self, run_ids: Iterable[int]) -> bool:
        self._hinted.update(run_ids)
        return True

    def frames(self, viewer: User) -> list[str]:
        now, clock = timezone.now(), time.monotonic()
        frames: list[str] = []
        pks = self._changed_rows(clock)
        rows = shared.get(("rows", *pks), lambda: read_rows(pks, now=now)) if pks else ()
        for row in rows:
            if self.sent.get(f"run-{row.pk}") != row:
                self.sent[f"run-{row.pk}"] = row
                frames.append(shared.get(("row", row), lambda: _drawn(row)))  # noqa: B023 - called at once
        key = (self.query.address, self.newest)
        new = 0 if self.query.error else shared.get(key, lambda: count_newer(self.query, self.newest))
        context = {"query": self.query, "new": new}
        frames.extend(self.changed("new", new, "runs/list.html#pill", context))
        waiting = shared.get("unattended", lambda: count_unattended(now))
        frames.extend(self.changed("nobody", waiting, "workers/nobody.html", {"unattended": waiting}))
        stretch = int(clock / COUNT_SECONDS)
        if self._counted_in != stretch:
            self._counted_in = stretch
            facets = shared.get(("facets", self.query.address), lambda: read_facets(self.query, now=now))
            frames.extend(self.changed("facets", facets, "runs/list.html#facets", {"facets": facets}))
        return frames

    def _changed_rows(self, clock: float) -> list[int]:
        """Those that hints named; all of them now and then, because a hint may be lost."""
        hinted, self._hinted = self._hinted, set()
        if clock - self._read_all_at >= LOOK_AGAIN_SECONDS:
            self._read_all_at = clock
            return self.pks
        return [pk for pk in self.pks if pk in hinted]


def _drawn(row: RunRow) -> str:
    return render_to_string("runs/row.html", {"row": row, "oob": True})
