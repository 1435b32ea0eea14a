"""Maps a name to a steering, and decides what ``auto`` chooses here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import SteeringError
from ..kernel.privileges import has_net_admin
from . import local, nftables
from .base import Steering, SteeringFacts
from .iptables import IptablesSteering
from .iptables.legacy import missing_programs
from .none import NoSteering

# Each names the tables in use, one a line.
_LEGACY = (
    Path("/proc/thread-self/net/ip_tables_names"),
    Path("/proc/thread-self/net/ip6_tables_names"),
)


def make_steering(name: str, facts: SteeringFacts, *, own_namespace: bool = False) -> Steering:
    """Return the steering of a name as in ``--steering``; nothing is started.

    Args:
        name: ``auto``, ``iptables``, ``nftables``, ``local`` or ``none``.
        facts: What it must know of this node.
        own_namespace: Whether we made the network namespace that it works in.

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


def choose(name: str, *, own_namespace: bool) -> str:
    """Return what a name stands for: itself, unless it is ``auto``.

    Raises:
        SteeringError: Nothing that ``auto`` knows works here.
    """
    if name != "auto":
        return name
    if own_namespace:
        return "local"
    lacks = {
        "iptables": iptables_lacks(),
        "nftables": nftables.missing(),
        "local": local.missing(),
    }
    # Joins what the node uses already; both at once is what makes rules hard to follow.
    rules = ("iptables", "nftables") if has_legacy_tables() else ("nftables", "iptables")
    order = (*rules, "local")
    for candidate in order:
        if not lacks[candidate]:
            return candidate
    raise SteeringError(
        f"cannot choose a steering: {'; '.join(f'{c}: {lacks[c]}' for c in order)}",
        hint="run as root or grant NET_ADMIN, modprobe nf_tables, or use --steering=none",
    )


def has_legacy_tables() -> bool:
    """Return whether legacy tables are in use in this thread's network namespace."""
    try:
        return any(path.read_text(encoding="ascii").strip() for path in _LEGACY if path.exists())
    except OSError:
        # Unreadable without a right; then iptables lacks it too.
        return False


def iptables_lacks() -> str:
    """Return what iptables steering lacks to work here, in words; empty where it lacks nothing."""
    lacks = [] if has_python_iptables() else ["python-iptables is missing"]
    lacks += [f"{program} is missing" for program in missing_programs()]
    if not has_net_admin():
        lacks.append("NET_ADMIN is missing")
    return ", ".join(lacks)


def has_python_iptables() -> bool:
    """Return whether python-iptables is installed, without importing it."""
    return importlib.util.find_spec("iptc") is not None
