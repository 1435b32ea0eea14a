"""Limits and lists this process's file descriptors."""

from __future__ import annotations

import contextlib
import itertools
import resource
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Limit this process to this number of further descriptors within the block."""
    taken = open_descriptors()
    free = (number for number in itertools.count() if str(number) not in taken)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, count, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_descriptors() -> set[str]:
    """Return the numbers of this process's descriptors, without the one that lists them."""
    found = {one.name for one in Path("/proc/self/fd").iterdir()}
    return {name for name in found if Path(f"/proc/self/fd/{name}").exists()}
