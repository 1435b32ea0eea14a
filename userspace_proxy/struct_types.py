"""Resolves msgspec's types before several threads use them."""

from __future__ import annotations

import threading
from typing import Any

import msgspec


def resolve(type_: Any) -> None:
    """Make msgspec resolve a type and the types of its fields under a lock, on its first use.

    msgspec 0.22 resolves fields lazily, and a second thread that uses a half-resolved type crashes
    the process (SIGSEGV). Call this before each decoding or conversion of a type that several
    threads may use, such as the threads of several embedded proxies.
    """
    if type_ not in _resolved:
        with _resolving:
            msgspec.json.Decoder(type_)
            _resolved.add(type_)


_resolved: set[Any] = set()
_resolving = threading.Lock()
