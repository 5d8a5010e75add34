"""How a process with many threads uses memory."""

from __future__ import annotations

import contextlib
import ctypes

M_ARENA_MAX = -8  # of glibc's malloc.h
HEAPS = 2


def share_heaps() -> None:
    """Let all threads of this process take memory from a few heaps; call it before there are threads.

    glibc opens a heap for nearly each thread and rarely gives one back. Does nothing where the C library has
    no such switch.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)
