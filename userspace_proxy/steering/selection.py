"""Maps a name to a steering, and decides what ``auto`` chooses here."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from ..errors import SteeringError
from ..kernel.offers import FOR_NFTABLES, LEGACY, NEEDS, read_kernel_offers
from ..kernel.privileges import has_net_admin
from ..model import Balance, IPFamily
from . import local, nftables
from .base import Steering, SteeringFacts
from .iptables import IptablesSteering
from .iptables.legacy import missing_programs, tables_in_use
from .none import NoSteering

_HINT = "run as root or grant NET_ADMIN, modprobe nf_tables, or use --steering=none"


def make_steering(name: str, facts: SteeringFacts, *, own_namespace: bool = False) -> Steering:
    """Return the steering for a value of ``--steering``; nothing is started.

    Args:
        own_namespace: Whether the network namespace was created for this proxy.

    Raises:
        SteeringError: No such steering, or ``auto`` finds none that works here.
    """
    match choose(name, own_namespace=own_namespace):
        case "iptables":
            return IptablesSteering(facts)
        case "local":
            return local.LocalSteering(facts, own_namespace=own_namespace)
        case "none":
            return NoSteering(facts)
        case "nftables":
            return nftables.NftablesSteering(facts)
        case other:
            raise SteeringError(
                f"cannot steer by {other!r}: no such steering",
                hint="use auto, iptables, nftables, local or none",
            )


def check_steering(name: str, *, own_namespace: bool) -> None:
    """Check whether the steering for a value of ``--steering`` can work here.

    Raises:
        SteeringError: It lacks something, or ``auto`` finds none.
    """
    chosen = choose(name, own_namespace=own_namespace)
    find_lack = {"local": lambda: local.missing(own_namespace=own_namespace), **_LACKS}.get(chosen)
    if find_lack is not None and (lacks := find_lack()):
        raise SteeringError(f"cannot steer by {chosen}: {lacks}", hint=remedy(chosen))


def check_kernel(name: str) -> None:
    """Check whether the kernel has what a steering by rules needs, as far as it can be tried.

    Raises:
        SteeringError: It lacks something, so a start can't succeed.
    """
    if lacks := read_kernel_offers(_PARTS.get(name, ())).words(NEEDS):
        raise SteeringError(f"cannot steer by {name}: {lacks}", hint=remedy(name))


def remedy(name: str) -> str:
    """Return what helps where a steering can't work: another one that can, if there is one."""
    for other, find_lack in _LACKS.items():
        if other != name and not find_lack():
            return f"--steering={other} works here"
    return _HINT


def choose(name: str, *, own_namespace: bool) -> str:
    """Return a name unchanged, unless it is ``auto``: then what works best here.

    Raises:
        SteeringError: No steering works here.
    """
    if name != "auto":
        return name
    if own_namespace:
        return "local"
    lacks = {candidate: find_lack() for candidate, find_lack in _LACKS.items()}
    return choose_by(lacks, has_legacy=has_legacy_tables())


def choose_by(lacks: Mapping[str, str], *, has_legacy: bool) -> str:
    """Return what ``auto`` chooses on a node.

    Args:
        lacks: What each steering lacks, in words; empty where it lacks nothing.

    Raises:
        SteeringError: Each lacks something.
    """
    # Prefers what the node uses already, as rules in both are hard to follow.
    order = ("iptables", "nftables") if has_legacy else ("nftables", "iptables")
    for candidate in order:
        if not lacks[candidate]:
            return candidate
    raise SteeringError(
        f"cannot choose a steering: {'; '.join(f'{c}: {lacks[c]}' for c in order)}",
        hint=_HINT,
    )


def find_no_kernel_path(name: str, proxy_name: str) -> Mapping[IPFamily | Balance, str]:
    """Return what :attr:`.Steering.no_kernel_path` would be if a steering were started here.

    Args:
        name: As in ``--steering``, but not ``auto``.
    """
    if name != "nftables":
        return Steering.no_kernel_path
    try:
        return nftables.find_no_kernel_path(proxy_name)
    except SteeringError as exc:
        return dict.fromkeys(IPFamily, exc.message)


def has_legacy_tables() -> bool:
    """Return whether legacy tables are in use in this thread's network namespace."""
    try:
        return any(map(tables_in_use, (4, 6)))
    except OSError:
        # Permission denied; then iptables lacks it, too.
        return False


def iptables_lacks() -> str:
    """Return what iptables steering lacks to work here; empty where it lacks nothing."""
    lacks = [] if has_python_iptables() else ["python-iptables is missing"]
    lacks += [f"{program} is missing" for program in missing_programs()]
    if not has_net_admin():
        lacks.append("NET_ADMIN is missing")
    # Last: to try it takes a network namespace.
    if not lacks and (no_tables := read_kernel_offers(_PARTS["iptables"]).words(NEEDS)):
        return no_tables
    return ", ".join(lacks)


def has_python_iptables() -> bool:
    """Return whether python-iptables is installed, without importing it."""
    return importlib.util.find_spec("iptc") is not None


_PARTS = {"nftables": FOR_NFTABLES, "iptables": (LEGACY[4],)}
"""What steerings by rules need of the kernel."""
_LACKS = {"iptables": iptables_lacks, "nftables": nftables.missing}
"""What steerings by rules lack to work here, in words; empty where they lack nothing."""
