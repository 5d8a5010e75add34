"""What a driver does outside of any transaction, and how it is recorded afterwards."""

from __future__ import annotations

from collections.abc import Callable

# Stores what an act brought. Called inside the driver's next transaction, together with what follows.
Record = Callable[[], None]
# A model turn, tool calls, a dry run: it may take long and may fail. What happened is in its record.
Act = Callable[[], Record]
