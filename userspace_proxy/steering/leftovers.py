"""Removes rules that a killed run of this proxy left under another steering.

Rule 1: what isn't there costs nothing: no library is loaded, no helper started, no table made.
Rule 2: it runs before the first listener: stale rules point to proxy ports that this run assigns
to other Services.
Rule 3: what can't be read is reported; leftovers that can't be removed stop the start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..errors import SteeringError
from . import local
from .base import Steering, SteeringFacts
from .choice import has_legacy_tables, has_python_iptables
from .iptables import IptablesSteering
from .local import LocalSteering
from .names import STEERING_TABLES, proxy_label
from .nftables import NftablesSteering


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What was found of other steerings."""

    removed: tuple[str, ...]
    """The names of those that had left something."""
    unseen: tuple[str, ...]
    """Why some could not be looked for."""


async def remove_leftovers(chosen: str, proxy_name: str) -> Leftovers:
    """Remove rules, routes and tables of a proxy that other steerings made; idempotent.

    Nothing of the proxy may be listening yet.

    Args:
        chosen: The steering that stays, as :attr:`Steering.name`.
        proxy_name: The proxy's ``--service-proxy-name``; empty without one.

    Returns:
        What was removed, and what nobody could look for.

    Raises:
        SteeringError: Something is there and can't be removed.
    """
    ways: dict[str, tuple[_Look, _Remove]] = {
        "iptables": (_has_iptables, _remove_iptables),
        "nftables": (_has_nftables, _remove_nftables),
        "local": (_has_local, _remove_local),
    }
    label = proxy_label(proxy_name)
    removed, unseen = [], []
    for name, (is_there, remove) in ways.items():
        if name == chosen:
            continue
        try:
            if not await is_there(label):
                continue
        except SteeringError as exc:
            unseen.append(str(exc))
            continue
        try:
            await remove(label)
        except SteeringError as exc:
            raise SteeringError(
                f"cannot remove leftovers of steering {name}, which would send clients to the "
                f"wrong Service: {exc.message}",
                hint=exc.hint or "run userspace-proxy cleanup",
            ) from exc
        removed.append(name)
    return Leftovers(tuple(removed), tuple(unseen))


_Look = Callable[[str], Awaitable[bool]]
_Remove = Callable[[str], Awaitable[None]]


async def _has_iptables(label: str) -> bool:
    if not has_legacy_tables() or not has_python_iptables():
        return False
    steering = IptablesSteering(SteeringFacts(proxy_name=label))
    try:
        return label in await steering.labels()
    finally:
        await steering.close()


async def _has_nftables(label: str) -> bool:
    return label in STEERING_TABLES.labels_here()


async def _has_local(label: str) -> bool:
    return local.is_present(label)


async def _remove_iptables(label: str) -> None:
    await _clean_up(IptablesSteering(SteeringFacts(proxy_name=label)))


async def _remove_nftables(label: str) -> None:
    await _clean_up(NftablesSteering(SteeringFacts(proxy_name=label)))


async def _remove_local(label: str) -> None:
    await _clean_up(LocalSteering(SteeringFacts(proxy_name=label)))


async def _clean_up(steering: Steering) -> None:
    try:
        await steering.clean_up()
    finally:
        await steering.close()
