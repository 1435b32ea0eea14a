"""Removes what another steering of the same proxy has left: of a run that was killed.

Rule 1: what isn't there costs nothing: no library is loaded, no helper started, no table made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from . import local, nftables
from .base import SteeringFacts
from .choice import has_legacy_tables, has_python_iptables
from .iptables import IptablesSteering
from .local import LocalSteering
from .names import proxy_label, table_name
from .nftables import NftablesSteering
from .nftables.removal import remove_table


async def remove_leftovers(chosen: str, proxy_name: str) -> list[str]:
    """Remove rules, routes and tables of a proxy that other steerings made; idempotent.

    Args:
        chosen: The steering that stays, as :attr:`Steering.name`.
        proxy_name: The proxy's ``--service-proxy-name``; empty without one.

    Returns:
        The names of the steerings that had left something.

    Raises:
        SteeringError: The kernel refused, or there is no right to ask.
    """
    removals: dict[str, Callable[[str], Awaitable[bool]]] = {
        "iptables": _iptables,
        "nftables": _nftables,
        "local": _local,
    }
    return [
        name
        for name, remove in removals.items()
        if name != chosen and await remove(proxy_label(proxy_name))
    ]


async def _iptables(label: str) -> bool:
    if not has_legacy_tables() or not has_python_iptables():
        return False
    steering = IptablesSteering(SteeringFacts(proxy_name=label))
    try:
        if label not in await steering.labels():
            return False
        await steering.clean_up()
    finally:
        await steering.close()
    return True


async def _nftables(label: str) -> bool:
    if label not in nftables.labels():
        return False
    if nftables.missing():
        # Which UDP associations were its, only the library could tell: those end by themselves.
        remove_table(table_name(label))
        return True
    steering = NftablesSteering(SteeringFacts(proxy_name=label))
    try:
        await steering.clean_up()
    finally:
        await steering.close()
    return True


async def _local(label: str) -> bool:
    if not local.is_present(label):
        return False
    steering = LocalSteering(SteeringFacts(proxy_name=label))
    try:
        await steering.clean_up()
    finally:
        await steering.close()
    return True
