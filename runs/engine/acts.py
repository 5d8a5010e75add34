"""What a driver does outside of any transaction, and how it is recorded afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Standing(Enum):
    """How it stands with a run for its driver when there is nothing to do outside."""

    GO_ON = "go_on"
    OVER = "over"


def nothing() -> None:
    """There is nothing to keep."""


@dataclass(frozen=True)
class Record:
    """What an act brought.

    `store` is called inside the driver's next transaction, together with what follows; it may say that the
    run is over for this driver. `when_lost` keeps what is worth keeping when somebody else drives by then.
    """

    store: Callable[[], Standing | None]
    when_lost: Callable[[], None] = nothing


# A model turn, tool calls, a dry run: it may take long and may fail. What happened is in its record.
Act = Callable[[], Record]
