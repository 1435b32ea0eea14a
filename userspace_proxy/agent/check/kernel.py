"""Reads what others have in this network namespace, once, for all who judge it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SteeringError
from ...steering.names import is_our_table
from ...steering.others import Chain, NftReader, Tables, read_legacy

# Chains whose rules are read, to see what becomes of packets that come in; a firewall has tens.
_CHAINS_MAX = 200
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
        nft = _read_nft()
    except SteeringError as exc:
        unread.append(exc.message)
    try:
        nat, filters = read_legacy("nat"), read_legacy("filter")
    except OSError as exc:
        unread.append(f"cannot read the legacy tables: {exc.strerror}")
    return KernelView(
        nft=nft,
        legacy_nat=nat,
        legacy_filter=filters,
        links=_links(),
        unread=tuple(unread),
    )


def base_chains(tables: Tables, *, kind: str, hook: str) -> Iterable[Chain]:
    """Yield the chains of others that the kernel itself calls at a hook."""
    for table, chains in tables.items():
        if not is_our_table(table):
            for chain in chains.values():
                if chain.kind == kind and chain.hook == hook:
                    yield chain


def _links() -> tuple[str, ...]:
    """Return the interfaces' names; by netlink it would cost 27 MiB of libraries."""
    lines = _INTERFACES.read_text(encoding="ascii", errors="replace").splitlines()
    return tuple(line.partition(":")[0].strip() for line in lines[2:])


def _read_nft() -> Tables:
    reader = NftReader()
    try:
        tables = reader.chains()
        wanted = list(base_chains(tables, kind="filter", hook="input"))
        known = {str(chain) for chain in wanted}
        room = _CHAINS_MAX
        while wanted and room:
            room -= 1
            chain = reader.with_steps(wanted.pop())
            chains = tables[chain.table]
            chains[chain.name] = chain
            for step in chain.steps:
                target = chains.get(step.verdict.partition(" ")[2])
                if target is not None and str(target) not in known:
                    known.add(str(target))
                    wanted.append(target)
        return tables
    finally:
        reader.close()
