"""Determines whether tests can create processes and sockets of other users."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

OTHER_UID = 65534


def can_become(uid: int) -> bool:
    """Return whether this process can become this user; a user namespace maps only a few users."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    ranges = [map(int, line.split()) for line in lines]
    return os.geteuid() == 0 and any(first <= uid < first + n for first, _, n in ranges)


as_another_user = pytest.mark.skipif(
    not can_become(OTHER_UID), reason="only root, outside of a user namespace, can be another user"
)
