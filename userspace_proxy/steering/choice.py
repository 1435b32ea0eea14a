"""Which steering a name means, and which one ``auto`` takes here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import SteeringError
from .base import Steering, SteeringFacts
from .iptables import IptablesSteering
from .local import LocalSteering
from .none import NoSteering

# Source: capabilities(7), include/uapi/linux/capability.h.
CAP_NET_ADMIN = 12


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
            return LocalSteering(facts, own_namespace=own_namespace)
        case "none":
            return NoSteering(facts)
        case "nftables":
            raise SteeringError(
                "cannot steer by nftables: not in this version", hint="use --steering=iptables"
            )
        case other:
            raise SteeringError(
                f"cannot steer by {other!r}: no such steering",
                hint="use auto, iptables, local or none",
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
    missing = []
    if not has_python_iptables():
        missing.append("iptables needs python-iptables")
    if not has_net_admin():
        missing.append("iptables needs NET_ADMIN")
    if not missing:
        return "iptables"
    raise SteeringError(
        f"cannot choose a steering: {', '.join(missing)}; local needs a sandbox",
        hint='pip install "userspace-proxy[iptables]" and run as root, or use --steering=none',
    )


def has_python_iptables() -> bool:
    """Return whether python-iptables is installed, without importing it."""
    return importlib.util.find_spec("iptc") is not None


def has_net_admin() -> bool:
    """Return whether this process may change rules in its network namespace."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_NET_ADMIN & 1)
    return False
