"""Remote calls from a test's process to the process of its network's proxy.

    Call(target, name, …) ──▶ the object's method
    CallResult            ◀──

Messages are pickles, which is safe: both processes run the same program as the same user, and no
other process can use the link. A socket is passed alongside a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Reference(NamedTuple):
    """Refers to an object in the other process."""

    number: int


PROXY = Reference(0)
"""The proxy itself."""


class Call(NamedTuple):
    """A method call, or the reading of a property."""

    target: Reference
    name: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = {}


class CallResult(NamedTuple):
    """The result of a call, or the exception that it raised."""

    value: object = None
    error: BaseException | None = None
