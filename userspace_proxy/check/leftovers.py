"""Finds rules that kube-proxy or a dead userspace-proxy left in the kernel.

The first rule that translates a connection decides its destination. This proxy's nftables chains
(priority -110) run before other chains (at -100). Its legacy chains are first in their table, but
an nftables chain of the same priority may run before the whole table, depending on the order of
their creation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..filters.chains import ChainTable, Tables
from ..filters.kube_proxy import (
    IPVS_LINK,
    kube_proxy_chains,
    kube_proxy_tables,
    nat_tables,
)
from ..steering.kernel_view import KernelView
from ..steering.names import GUARD_TABLES, KERNEL_PATH_TABLES, STEERING_TABLES, label_of
from .finding import Finding, error, ok, warning

_TOPIC = "kube-proxy"
_CLEAN_UP = (
    "run kube-proxy --cleanup once, from the image of the kube-proxy that ran here, privileged "
    "and on the host network"
)


def judge_kube_proxy(kernel: KernelView, steering: str, *, is_beside: bool) -> list[Finding]:
    """Report kube-proxy's rules, and whether they take precedence.

    Args:
        is_beside: Whether this proxy serves only labelled Services, beside kube-proxy.
    """
    if steering in ("none", ""):
        return []
    found = [*_legacy(kernel, steering), *_in_nft(kernel, steering), *_ipvs(kernel, steering)]
    if not found:
        return [] if kernel.unread else [ok(_TOPIC, "nothing left behind")]
    if is_beside:
        return [
            ok(_TOPIC, "its rules serve the Services that this proxy doesn't", finding.where)
            for finding in found
        ]
    return found


def _legacy(kernel: KernelView, steering: str) -> Iterator[Finding]:
    for table, chains in _with_kube_chains(kernel.legacy_nat):
        if steering == "local":
            yield _wins(
                f"{chains} may translate packets before local steering receives them", table
            )
        else:
            yield _loses(chains, table)


def _in_nft(kernel: KernelView, steering: str) -> Iterator[Finding]:
    for table, words in _with_kube_chains(nat_tables(kernel.nft)):
        if steering == "nftables":
            yield _loses(words, table)
        else:
            yield _wins(f"{words} may be evaluated before this proxy's rules", table)
    for table in kube_proxy_tables(kernel.nft):
        yield error(
            _TOPIC,
            "its table rejects traffic for which it has no endpoint, under any steering",
            f"nftables table {table}",
            f"{_CLEAN_UP}; or nft delete table {table}",
        )


def _ipvs(kernel: KernelView, steering: str) -> Iterator[Finding]:
    if IPVS_LINK in kernel.links:
        yield (error if steering == "local" else warning)(
            _TOPIC,
            f"{IPVS_LINK} still holds Service addresses: after a Service is deleted, this node's "
            "own daemons answer at its address",
            f"interface {IPVS_LINK}",
            f"{_CLEAN_UP}; or ip link delete {IPVS_LINK} && ipvsadm --clear",
        )


def _wins(what: str, table: ChainTable) -> Finding:
    return error(_TOPIC, what, f"table {table}", f"{_CLEAN_UP}; or --steering=nftables")


def _loses(chains: str, table: ChainTable) -> Finding:
    return warning(
        _TOPIC,
        f"still there: {chains}; this proxy's rules are evaluated first, and the old rules see "
        "all other traffic",
        f"table {table}",
        _CLEAN_UP,
    )


def _with_kube_chains(tables: Tables) -> Iterator[tuple[ChainTable, str]]:
    for table, names in kube_proxy_chains(tables):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield table, f"chain {names[0]}{more}"


def judge_own(kernel: KernelView, running: Collection[str]) -> list[Finding]:
    """Report rules of userspace-proxies whose labels no running proxy has."""
    places: dict[str, list[str]] = {}
    for name in kernel.inet_tables:
        kinds = (STEERING_TABLES, KERNEL_PATH_TABLES, GUARD_TABLES)
        found = (kind.label_in(name) for kind in kinds)
        label = next((one for one in found if one is not None), None)
        if label is not None:
            places.setdefault(label, []).append(f"nftables table inet {name}")
    for table, chains in (*kernel.legacy_nat.items(), *kernel.legacy_filter.items()):
        for label in sorted({one for one in map(label_of, chains) if one is not None}):
            places.setdefault(label, []).append(f"table {table}")
    return [
        warning(
            "leftovers",
            f"rules of a userspace-proxy{f' named {label}' if label else ''} that isn't running",
            ", ".join(where),
            "userspace-proxy run takes them over, userspace-proxy cleanup removes them",
        )
        for label, where in sorted(places.items())
        if label not in running
    ]
