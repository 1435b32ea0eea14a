"""Removes rules that a killed run of this proxy left under another steering.

Rule 1: what doesn't exist costs nothing: no library is loaded, no helper started, no table created.
Rule 2: it runs before the first listener: stale rules point to proxy ports that this run assigns
to other Services.
Rule 3: what can't be read is reported; leftovers that can't be removed prevent the start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..errors import SteeringError
from . import local
from .base import Steering, SteeringFacts
from .iptables import IptablesSteering
from .local import LocalSteering
from .names import nftables_labels_here, proxy_label
from .nftables import NftablesSteering
from .selection import has_legacy_tables, has_python_iptables

_Kind = TypeVar("_Kind", bound=Steering)
_HasLeft = Callable[[str], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What other steerings had left."""

    removed: tuple[str, ...]
    """The steerings whose leftovers were removed."""
    unseen: tuple[str, ...]
    """Why others could not be checked."""


async def remove_leftovers(chosen: str, proxy_name: str) -> Leftovers:
    """Remove rules, routes and tables of a proxy that other steerings created; idempotent.

    No listener of the proxy may exist yet.

    Args:
        chosen: The steering that stays, as :attr:`Steering.name`.

    Raises:
        SteeringError: Something exists and can't be removed.
    """
    label = proxy_label(proxy_name)
    removed, unseen = [], []
    for kind, has_left in _STEERINGS.items():
        if kind.name == chosen:
            continue
        try:
            if not await has_left(label):
                continue
        except SteeringError as exc:
            unseen.append(str(exc))
            continue
        try:
            async with _closing(kind(SteeringFacts(proxy_name=label))) as steering:
                await steering.clean_up()
        except SteeringError as exc:
            raise SteeringError(
                f"cannot remove leftovers of steering {kind.name}, which would send clients to "
                f"the wrong Service: {exc.message}",
                hint=exc.hint or "run userspace-proxy cleanup",
            ) from exc
        removed.append(kind.name)
    return Leftovers(tuple(removed), tuple(unseen))


@asynccontextmanager
async def _closing(steering: _Kind) -> AsyncIterator[_Kind]:
    try:
        yield steering
    finally:
        await steering.close()


async def _has_iptables(label: str) -> bool:
    if not has_legacy_tables() or not has_python_iptables():
        return False
    async with _closing(IptablesSteering(SteeringFacts(proxy_name=label))) as steering:
        return label in await steering.labels()


async def _has_nftables(label: str) -> bool:
    return label in nftables_labels_here()


async def _has_local(label: str) -> bool:
    return local.is_present(label)


_STEERINGS: dict[type[IptablesSteering | NftablesSteering | LocalSteering], _HasLeft] = {
    IptablesSteering: _has_iptables,
    NftablesSteering: _has_nftables,
    LocalSteering: _has_local,
}
