"""Creates a steering mechanism by name, resolves ``auto``, and removes leftovers of other modes.

Rule 1: a mechanism that isn't used needs no library, helper or table.
Rule 2: leftovers are removed before the first listener opens, because stale rules point to proxy
ports that this run assigns to other Services.
Rule 3: unreadable state is reported; leftovers that can't be removed prevent startup.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..errors import SteeringError
from ..kernel.offers import (
    FOR_GUARD,
    FOR_IPTABLES,
    FOR_NFTABLES,
    FOR_SOCKETS,
    LACKS_NOTHING,
    KernelOffers,
    read_kernel_offers,
)
from ..kernel.privileges import has_net_admin
from ..model import Balance, IPFamily, Protocol
from . import local, nftables
from .base import NoSteering, Steering, SteeringFacts
from .iptables import IptablesSteering
from .iptables.legacy import missing_programs, tables_in_use
from .local import LocalSteering
from .names import nftables_labels_here, proxy_label
from .nftables import NftablesSteering


def read_offers_for(steering: str | Steering) -> KernelOffers:
    """Try the kernel parts on which a steering mode depends; blocks for about 10 ms.

    Args:
        steering: A value of ``--steering``, or the caller's own mechanism.
    """
    is_alone = steering == "none" or isinstance(steering, Steering)
    return read_kernel_offers(FOR_SOCKETS) if is_alone else read_kernel_offers()


def make_steering(
    name: str,
    facts: SteeringFacts,
    *,
    own_namespace: bool = False,
    kernel: KernelOffers = LACKS_NOTHING,
) -> Steering:
    """Return the mechanism for a value of ``--steering``, without starting it.

    Args:
        own_namespace: Whether the network namespace was created for this proxy.

    Raises:
        SteeringError: There is no such mode, or no mode works here (``auto``).
    """
    match choose(name, kernel, own_namespace=own_namespace):
        case "iptables":
            return IptablesSteering(facts, kernel)
        case "local":
            return local.LocalSteering(facts, own_namespace=own_namespace, kernel=kernel)
        case "none":
            return NoSteering(facts)
        case "nftables":
            return nftables.NftablesSteering(facts, kernel)
        case other:
            raise SteeringError(
                f"cannot steer by {other!r}: no such steering",
                hint="use auto, iptables, nftables, local or none",
            )


def check_steering(name: str, kernel: KernelOffers, *, own_namespace: bool) -> None:
    """Check whether a value of ``--steering`` can work here.

    Raises:
        SteeringError: The mode can't work here, or no mode can (``auto``).
    """
    chosen = choose(name, kernel, own_namespace=own_namespace)
    lacks = lacks_of(kernel, own_namespace=own_namespace).get(chosen, "")
    if lacks:
        raise SteeringError(f"cannot steer by {chosen}: {lacks}", hint=remedy(chosen, kernel))


def check_kernel(name: str, kernel: KernelOffers, *, own_namespace: bool) -> None:
    """Check whether a kernel with these ``KernelOffers`` supports a steering mode.

    Raises:
        SteeringError: The kernel lacks something that steering needs, so startup would fail.
    """
    if lacks := kernel_lacks(name, kernel, own_namespace=own_namespace):
        raise SteeringError(f"cannot steer by {name}: {lacks}", hint=remedy(name, kernel))


def kernel_lacks(name: str, kernel: KernelOffers, *, own_namespace: bool) -> str:
    """Describe the parts that a steering mode needs and this kernel lacks; empty if it has all."""
    parts = () if name == "local" and own_namespace else _PARTS.get(name, ())
    return kernel.words(parts)


def remedy(name: str, kernel: KernelOffers) -> str:
    """Return a hint for a steering mode that can't work: another mode, or the missing permission.

    Args:
        name: The mode; ``auto`` if no mode can work.
    """
    if other := works_instead(name, kernel):
        return f"--steering={other} works here"
    if has_net_admin():
        return "only --steering=none works here"
    return "run as root or grant NET_ADMIN, or use --steering=none"


def works_instead(name: str, kernel: KernelOffers) -> str:
    """Return another steering mode that can work here; empty if none can."""
    lacks = lacks_of(kernel, own_namespace=False)
    return next((other for other in lacks if other != name and not lacks[other]), "")


def lacks_of(kernel: KernelOffers, *, own_namespace: bool) -> dict[str, str]:
    """Describe what this node lacks for each steering mode; empty if the mode can work."""
    return {
        "nftables": nftables.missing(kernel),
        "iptables": iptables_lacks(kernel),
        "local": local.missing(kernel, own_namespace=own_namespace),
    }


def choose(name: str, kernel: KernelOffers, *, own_namespace: bool) -> str:
    """Return a mode's name; for ``auto``, ``local`` in an own namespace, else the best mode here.

    Raises:
        SteeringError: The name is ``auto``, and no mode can work here.
    """
    if name != "auto":
        return name
    if own_namespace:
        return "local"
    lacks = lacks_of(kernel, own_namespace=False)
    return choose_by(lacks, has_legacy=has_legacy_tables(), hint=remedy("auto", kernel))


def choose_by(lacks: Mapping[str, str], *, has_legacy: bool, hint: str) -> str:
    """Return the steering mode that ``auto`` chooses on a node.

    Args:
        lacks: The missing requirements of each mode; empty if it can work.
        hint: The hint if no mode can work.

    Raises:
        SteeringError: No mode can work.
    """
    # Prefer the mechanism that the node already uses: rules in two mechanisms are hard to follow.
    order = ("iptables", "nftables") if has_legacy else ("nftables", "iptables")
    for candidate in order:
        if not lacks[candidate]:
            return candidate
    raise SteeringError(
        f"cannot choose a steering: {'; '.join(f'{c}: {lacks[c]}' for c in order)}",
        hint=hint,
    )


def find_no_kernel_path(
    name: str, kernel: KernelOffers
) -> Mapping[IPFamily | Balance | Protocol, str]:
    """Return the :attr:`.Steering.no_kernel_path` that a steering mode would have on this node.

    Args:
        name: A value of ``--steering`` other than ``auto``.
    """
    if name == "nftables":
        return nftables.find_no_kernel_path(kernel)
    return (IptablesSteering if name == "iptables" else Steering).no_kernel_path


def has_legacy_tables() -> bool:
    """Return whether legacy tables are in use in this thread's namespace; False if unknown."""
    try:
        return any(map(tables_in_use, (4, 6)))
    except OSError:
        # Permission is denied, so iptables can't work either.
        return False


def iptables_lacks(kernel: KernelOffers) -> str:
    """Return what ``iptables`` steering lacks on this node; empty if it can work."""
    lacks = [] if has_python_iptables() else ["python-iptables is missing"]
    lacks += [f"{program} is missing" for program in missing_programs()]
    if not has_net_admin():
        lacks.append("NET_ADMIN is missing")
    if no_tables := kernel.words(FOR_IPTABLES):
        lacks.append(no_tables)
    return ", ".join(lacks)


def has_python_iptables() -> bool:
    """Return whether python-iptables is installed, without importing it."""
    return importlib.util.find_spec("iptc") is not None


_PARTS = {"nftables": FOR_NFTABLES, "iptables": FOR_IPTABLES, "local": FOR_GUARD}
"""The kernel parts that steering modes need."""


_Kind = TypeVar("_Kind", bound=Steering)
_HasLeft = Callable[[str], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The leftovers of other steering modes, as found by :func:`remove_leftovers`."""

    removed: tuple[str, ...]
    """The steering modes whose leftovers were removed."""
    unseen: tuple[str, ...]
    """Why some other modes couldn't be checked for leftovers."""


async def remove_leftovers(chosen: str, proxy_name: str) -> Leftovers:
    """Remove a proxy's rules, routes and tables of other steering modes; idempotent.

    No listener of the proxy may exist yet.

    Args:
        chosen: The mode that stays, as :attr:`Steering.name`.

    Raises:
        SteeringError: A leftover can't be removed.
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
