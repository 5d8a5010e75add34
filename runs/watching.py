"""Tells the live connections of this process that runs changed: one watcher per event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from weakref import WeakKeyDictionary

from channels.layers import BaseChannelLayer

from runs import hints
from runs.sharing import shared

GROUP = "changes"
RETRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


class _Watch:
    """The task of one event loop, and how many connections need it."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.users = 0


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()


def hold_watch(layer: BaseChannelLayer) -> None:
    """Make sure that somebody watches in this event loop; every call needs one `release_watch`."""
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None or watch.task.done():
        shared.forget()  # nobody listened
        watch = _watches[loop] = _Watch(loop.create_task(_watch_for_ever(layer)))
    watch.users += 1


async def release_watch() -> None:
    """The last one to leave stops the watcher."""
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        return
    watch.users -= 1
    if watch.users <= 0:
        del _watches[loop]
        watch.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch.task


async def _watch_for_ever(layer: BaseChannelLayer) -> None:
    """Pass every hint on. When watching breaks, say so in the log and begin again: pages look anyway."""
    while True:
        try:
            async for run_ids in hints.changes():
                shared.forget()
                await layer.group_send(GROUP, {"type": "runs.changed", "runs": sorted(run_ids)})
        except Exception:
            logger.exception("Watching for changes broke off; it begins again.")
        await asyncio.sleep(RETRY_SECONDS)
