"""Calls from a test's process to objects in the process of its network's proxy.

    Call(target, name, …) ──▶ the object's method
    CallResult            ◀──

Messages are pickles: both processes run the same program for the same user, and nothing else has
the link. A socket is passed beside a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Reference(NamedTuple):
    """An object that stays in the other process."""

    number: int


PROXY = Reference(0)
"""The proxy itself."""


class Call(NamedTuple):
    """A call of a method, or the value of a property."""

    target: Reference
    name: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = {}


class CallResult(NamedTuple):
    """What a call returned or raised."""

    value: object = None
    error: BaseException | None = None
