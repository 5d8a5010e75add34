"""The looks of all live pages of one event loop are taken in one thread, one after another.

After a hint every open page wants to look. A hop to a thread and a connection for each of them cost more than
what most of them read, which another page has read already (`sharing.py`): so whoever is due is served in one
go, with one connection, the pages that follow one run before those that overlook many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from queue import Empty, PriorityQueue
from typing import Any
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from django.db import close_old_connections

type _Look = tuple[float, int, Callable[[], Any], asyncio.Future[Any]]


class Looks:
    """The looks that are due in one event loop."""

    def __init__(self) -> None:
        self._numbers = count()
        self._due: PriorityQueue[_Look] = PriorityQueue()
        self._reading: asyncio.Task[None] | None = None

    async def take[T](self, look: Callable[[], T], *, patience: float) -> T:
        """What this look returns or raises, taken in the thread; begun within so many seconds if possible.

        Whose patience ends first goes first, so nobody is overtaken for ever.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._due.put((loop.time() + patience, next(self._numbers), look, answer))
        if self._reading is None:
            self._reading = loop.create_task(self._read())
        return await answer

    async def _read(self) -> None:
        """Until nothing is due. A connection that cannot be had is the answer of all who wait."""
        try:
            while not self._due.empty():
                await database_sync_to_async(self._read_due)()
        except Exception as error:  # whatever it is, they must not wait for ever
            while not self._due.empty():
                _tell(self._due.get_nowait()[-1], error=error)
        finally:
            self._reading = None

    def _read_due(self) -> None:
        """In the thread. Each answer is told at once, while the next look is taken."""
        while True:
            try:
                *_, look, answer = self._due.get_nowait()
            except Empty:
                return
            if answer.cancelled():  # the page was closed meanwhile
                continue
            try:
                value = look()
            except Exception as error:  # it belongs to the page that looked
                close_old_connections()  # the next one does not meet a connection that broke
                answer.get_loop().call_soon_threadsafe(_tell, answer, None, error)
            else:
                answer.get_loop().call_soon_threadsafe(_tell, answer, value)


def _tell(answer: asyncio.Future[Any], value: object = None, error: Exception | None = None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


_looks: WeakKeyDictionary[asyncio.AbstractEventLoop, Looks] = WeakKeyDictionary()


def looks_of_this_loop() -> Looks:
    """Those of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _looks:
        _looks[loop] = Looks()
    return _looks[loop]
