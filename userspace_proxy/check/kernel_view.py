"""Reads the rules of other programs in this network namespace once, for all checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SteeringError
from ..steering.others import Tables, read_input_chains, read_legacy

_INTERFACES = Path("/proc/thread-self/net/dev")


@dataclass(frozen=True, slots=True)
class KernelView:
    """The tables of others, and the interfaces."""

    nft: Tables = field(default_factory=dict)
    """All chains; rules only of those that packets to this node meet."""
    legacy_nat: Tables = field(default_factory=dict)
    legacy_filter: Tables = field(default_factory=dict)
    links: tuple[str, ...] = ()
    """Names of the interfaces."""
    unread: tuple[str, ...] = ()
    """What couldn't be read, and why, one line each."""


def read_kernel() -> KernelView:
    """Read this thread's network namespace; takes some 50 ms, and seconds with 100,000 rules."""
    unread: list[str] = []
    nft: Tables = {}
    nat: Tables = {}
    filters: Tables = {}
    try:
        nft = read_input_chains()
    except SteeringError as exc:
        unread.append(exc.message)
    try:
        nat, filters = read_legacy("nat"), read_legacy("filter")
    except SteeringError as exc:
        unread.append(exc.message)
    return KernelView(
        nft=nft,
        legacy_nat=nat,
        legacy_filter=filters,
        links=_links(),
        unread=tuple(unread),
    )


def _links() -> tuple[str, ...]:
    """Return the interfaces' names; by netlink it would cost 27 MiB of libraries."""
    lines = _INTERFACES.read_text(encoding="ascii", errors="replace").splitlines()
    return tuple(line.partition(":")[0].strip() for line in lines[2:])
