"""Runs a command's coroutine without formatting its result, which may be large."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine, and return its result.

    asyncio.run() formats the result as text, which takes long if the result is large. Source:
    asyncio.Runner of Python 3.11.
    """
    found: list[_T] = []

    async def main() -> None:
        found.append(await coroutine)

    asyncio.run(main())
    return found[0]
