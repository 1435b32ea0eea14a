"""Runs the garbage collector once after start-up and freezes what survived."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def settle_memory() -> None:
    """Call it after much was made; it takes a tenth of a second for 10,000 Services.

    A full collection takes as long, and would come whenever a quarter more was made.
    """
    gc.collect()
    gc.freeze()
    # Of glibc: the C libraries that have no such function give memory back by themselves.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
