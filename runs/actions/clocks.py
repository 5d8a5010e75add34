"""How long a run was driven, and how long it waited for people."""

from __future__ import annotations

from datetime import datetime

from runs.actions.change import Change


def stop_clock(current: Change, until: datetime | None = None) -> None:
    """Nobody drives the run any more, or since `until`: the driven time no longer grows."""
    since: datetime | None = current.run.driving_since
    if since is not None:
        driven = ((until or current.now) - since).total_seconds()
        current.add(driven_seconds=max(0.0, driven))
        current.set(driving_since=None)


def end_waiting(current: Change) -> None:
    """A person decided or the deadline did: the time waited no longer grows."""
    since: datetime | None = current.run.waiting_since
    if since is not None:
        current.add(waited_seconds=(current.now - since).total_seconds())
        current.set(waiting_since=None)
