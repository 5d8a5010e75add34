"""Live pages: after every hint re-read the rows and send the parts of the page that changed, to be morphed.

A lost hint or a lost connection costs nothing: the next look sends what is different by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.utils import timezone

from runs.access import may_set_budgets
from runs.forms import REASONS
from runs.looking import looks_of_this_loop
from runs.parameters import number_of, numbers_of, parameters_of
from runs.present import enter, is_still_here, leave
from runs.reading.budget_page import find_budget, read_drawings, read_state
from runs.reading.budgets import read_budgets, read_changes
from runs.reading.outcomes import count_unknown
from runs.reading.queue import count_pending, pending_pks, read_card, read_tickets
from runs.reading.rechecks import read_relapses
from runs.reading.workers import read_workers
from runs.sharing import shared
from runs.watching import GROUP, hold_watch, release_watch

SIGNED_OUT = 4401  # the browser does not come back after this code
GONE = 4404
LOOK_AGAIN_SECONDS = 10.0
CHARTS_EVERY_SECONDS = 20.0  # of a budget

logger = logging.getLogger(__name__)


class Closed(Exception):
    """This connection ends here, with a code for the browser."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc] # channels has no types
    """One open page. Subclasses say which parts it has; `send_changed` sends those that differ."""

    rest_seconds = 0.05  # between two looks: hints that come faster are answered together
    _serving: asyncio.Task[None] | None = None
    _held = False

    async def connect(self) -> None:
        await self.accept()
        self.sent: dict[str, Any] = {}
        self.prepare(parameters_of(self.scope["query_string"]))
        self._changed = asyncio.Event()
        self._recognised_at = time.monotonic()
        self._took = 0.0
        if not self.scope["user"].is_authenticated:
            await self.close(SIGNED_OUT)
            return
        self._viewer: User = self.scope["user"]
        await self.channel_layer.group_add(GROUP, self.channel_name)
        hold_watch(self.channel_layer)
        self._held = True
        enter(*self._present())
        self._serving = asyncio.create_task(self._serve())

    def prepare(self, parameters: dict[str, str]) -> None:
        """Take what the address of the connection says."""

    async def disconnect(self, code: int) -> None:
        if self._serving is not None:
            self._serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving
        if self._held:
            self._held = False
            leave(*self._present())
            await self.channel_layer.group_discard(GROUP, self.channel_name)
            await release_watch()

    def _present(self) -> tuple[str, int]:
        return self.scope["session"].session_key, self.scope["user"].pk

    async def runs_changed(self, event: dict[str, Any]) -> None:
        """A hint from the watcher."""
        if self.concerns(event["runs"]):
            self._changed.set()

    def concerns(self, run_ids: Iterable[int]) -> bool:
        """Does a change of these runs matter to this page?"""
        return True

    def frames(self, viewer: User) -> list[str]:
        """What to send now: HTML of the parts that differ from what was sent before."""
        raise NotImplementedError

    def rest_after(self, took: float) -> float:
        """Seconds until the next look at the earliest, after one that took so long."""
        return self.rest_seconds

    def look_now(self) -> None:
        """Look again without waiting for a hint."""
        self._changed.set()

    async def _serve(self) -> None:
        """Look, send, wait for a hint. Also looks from time to time without one, and says so."""
        looks = looks_of_this_loop()
        try:
            while True:
                for frame in await looks.take(self._read, patience=self.rest_seconds):
                    await self.send(text_data=frame)
                is_due = time.monotonic() - self._recognised_at > LOOK_AGAIN_SECONDS / 2
                if is_due and await looks.take(self._recognise, patience=LOOK_AGAIN_SECONDS):
                    self.look_now()
                await asyncio.sleep(self.rest_after(self._took))
                try:
                    await asyncio.wait_for(self._changed.wait(), LOOK_AGAIN_SECONDS)
                except TimeoutError:
                    await self.send(text_data="<!-- still here -->")
                self._changed.clear()
        except Closed as closed:
            await self.close(closed.code)
        except asyncio.CancelledError:
            raise
        except OSError:
            logger.debug("a browser left while it was being sent to")
        except Exception:
            logger.exception("A live page broke off; the browser connects again.")
            await self.close(1011)

    def _recognise(self) -> bool:
        """Read again what this person may do, and say whether that changed.

        Done after what waits was sent, so that nobody waits for it. Who is gone, or has another password
        by now, stays as they were: the next look drops them.
        """
        self._recognised_at = time.monotonic()
        before, now = self._viewer, User.objects.filter(pk=self._viewer.pk).first()
        if now is None or now.password != before.password:
            return False
        self._viewer = now
        return now.get_all_permissions() != before.get_all_permissions()

    def _read(self) -> list[str]:
        """In a thread with a database connection. A session that ended ends the connection too."""
        began = time.monotonic()
        if not is_still_here(self.scope["session"].session_key, self._viewer):
            raise Closed(SIGNED_OUT)
        frames = self.frames(self._viewer)
        counts = shared.get("counts", _counts)
        frames.extend(self.changed("pending", counts, "parts/pending.html", counts))
        self._took = time.monotonic() - began
        return frames

    def changed(self, name: str, value: Any, template: str, context: dict[str, Any]) -> list[str]:
        """The part as a frame when its value is another than the last one sent."""
        if name in self.sent and self.sent[name] == value:
            return []
        self.sent[name] = value
        return [render_to_string(template, {**context, "oob": True})]

    def changed_html(self, name: str, template: str, context: dict[str, Any]) -> list[str]:
        """The same for a part without a value to compare: its HTML is the value."""
        html = render_to_string(template, {**context, "oob": True})
        if self.sent.get(name) == html:
            return []
        self.sent[name] = html
        return [html]


def _counts() -> dict[str, Any]:
    """What waits for a person."""
    return {"pending": count_pending(timezone.now()), "unknown": count_unknown()}


class FrameConsumer(LiveConsumer):
    """A page without live content of its own: only the number of pending approvals."""

    def frames(self, viewer: User) -> list[str]:
        return []


class NoSuchPage(LiveConsumer):
    """An address that no page has."""

    async def connect(self) -> None:
        await self.accept()
        await self.close(GONE)


class QueueConsumer(LiveConsumer):
    """The queue: decided entries stay where they are, new ones are only counted."""

    def prepare(self, parameters: dict[str, str]) -> None:
        self.pks = numbers_of(parameters.get("rows", ""))
        self.open_pk = number_of(parameters.get("open", ""))

    def frames(self, viewer: User) -> list[str]:
        now = timezone.now()
        frames: list[str] = []
        for ticket in read_tickets(self.pks, viewer=viewer, now=now):
            key = (ticket.ask, ticket.ask.is_open)
            context = {"ticket": ticket, "open": self.open_pk}
            frames.extend(self.changed(f"ticket-{ticket.ask.pk}", key, "approvals/ticket.html", context))
        relapses = read_relapses()
        shown = {"relapses": relapses, "viewer": viewer}
        frames.extend(self.changed("relapses", relapses, "approvals/relapses.html", shown))
        new = len(set(pending_pks(now)) - set(self.pks) - {self.open_pk})
        frames.extend(self.changed("new", new, "approvals/pill.html", {"new": new}))
        if self.open_pk is not None:
            frames.extend(self._card(viewer))
        return frames

    def _card(self, viewer: User) -> list[str]:
        assert self.open_pk is not None
        card = read_card(self.open_pk, viewer=viewer, now=timezone.now())
        if card is None:
            return []
        context = {"card": card, "viewer": viewer, "reasons": REASONS.items()}
        return self.changed("card", card.key, "approvals/card.html", context)


class WorkersConsumer(LiveConsumer):
    """The workers. Their signs of life are no hints, so it also looks again by itself."""

    rest_seconds = 1.0

    def frames(self, viewer: User) -> list[str]:
        context = {"workers": read_workers(timezone.now())}
        return self.changed_html("workers", "workers/workers.html#workers", context)


class BudgetsConsumer(LiveConsumer):
    """The budgets: what is spent of each, who waits, who changed what. Its forms keep what is in them."""

    rest_seconds = 1.0

    def frames(self, viewer: User) -> list[str]:
        context = {
            "lines": read_budgets(simulated=not settings.ANTHROPIC_API_KEY, now=timezone.now()),
            "changes": read_changes(),
            "permission": may_set_budgets(viewer),
        }
        return [
            *self.changed_html("budgets", "budgets/budgets.html#budgets", context),
            *self.changed_html("changes", "budgets/budgets.html#changes", context),
        ]


class BudgetConsumer(LiveConsumer):
    """One budget. Its charts read every step of the period, so they are drawn less often than the rest."""

    rest_seconds = 1.0
    drawn_at = float("-inf")

    def frames(self, viewer: User) -> list[str]:
        budget = find_budget(self.scope["url_route"]["kwargs"]["pk"])
        if budget is None:
            raise Closed(GONE)
        simulated, now = not settings.ANTHROPIC_API_KEY, timezone.now()
        context: dict[str, Any] = {
            "state": read_state(budget, simulated=simulated, now=now),
            "budget": budget,
            "changes": read_changes(budget.pk),
        }
        frames = [
            *self.changed_html("budget", "budgets/budget.html#budget", context),
            *self.changed_html("rest", "budgets/budget.html#rest", context),
        ]
        if time.monotonic() >= self.drawn_at + CHARTS_EVERY_SECONDS:
            self.drawn_at = time.monotonic()
            drawings = read_drawings(budget, simulated=simulated, now=now)
            frames += self.changed_html("charts", "budgets/budget.html#charts", {"drawings": drawings})
        return frames
