"""Checks privileges, libraries and kernel features for steering, and what ``auto`` chooses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..agent.proxy_parts import facts_of_kernel
from ..errors import SteeringError
from ..facts import KernelLackFacts
from ..kernel.offers import SOCKET_MATCH, KernelOffers
from ..kernel.privileges import USER_NAMESPACES, effective_capabilities, forbidding, read_sysctls
from ..steering.iptables.legacy import tables_in_use
from ..steering.selection import (
    choose,
    has_legacy_tables,
    kernel_lacks,
    lacks_of,
    remedy,
    works_instead,
)
from .finding import Finding, error, ok, warning

# Source: capabilities(7), include/uapi/linux/capability.h.
_CAPABILITIES = {12: "NET_ADMIN", 13: "NET_RAW"}


@dataclass(frozen=True, slots=True)
class Offers:
    """The privileges, libraries and kernel features of this node."""

    capabilities: tuple[str, ...] = ()
    """NET_ADMIN and NET_RAW, if this process has them."""
    nftables_lack: str = ""
    """Why nftables doesn't work; empty if it does."""
    iptables_lack: str = ""
    local_lack: str = ""
    """Why local steering doesn't work in a network namespace with other daemons."""
    legacy_tables: tuple[str, ...] = ()
    """Names of the legacy iptables tables in use, in either family."""
    without_nft_socket: bool = False
    """nftables works, but can't distinguish the proxy's sockets."""
    without_xt_socket: bool = False
    """iptables works, but can't distinguish the proxy's sockets."""
    kernel_lacks: tuple[KernelLackFacts, ...] = ()
    """Missing kernel features."""
    is_in_kernel: bool = False
    """The chosen steering lacks a kernel feature."""
    instead: str = ""
    """Another steering than the chosen one that works here; empty if none does."""
    remedy: str = ""
    """The remedy if the chosen steering can't work, apart from an installation."""
    forbidding: str = ""
    """A sysctl that forbids user namespaces, as the ``name=value`` that would allow them."""
    has_namespaces: bool = True
    """Whether the kernel has user namespaces."""


def read_offers(kernel: KernelOffers, taken: str) -> Offers:
    """Query the libraries and the kernel's features.

    Args:
        taken: The chosen steering; empty if none works here.
    """
    mask = effective_capabilities()
    capabilities = tuple(name for bit, name in _CAPABILITIES.items() if mask >> bit & 1)
    is_admin = "NET_ADMIN" in capabilities
    lacks = lacks_of(kernel, own_namespace=False)
    iptables_lack = lacks["iptables"]
    nftables_lack = lacks["nftables"] if is_admin else "NET_ADMIN is missing"
    sysctls = read_sysctls()
    forbidden = forbidding(sysctls)
    return Offers(
        capabilities=capabilities,
        nftables_lack=nftables_lack,
        iptables_lack=iptables_lack,
        local_lack=lacks["local"] if is_admin else "",
        without_nft_socket=not nftables_lack and "socket" in kernel.lacks,
        without_xt_socket=not iptables_lack and SOCKET_MATCH in kernel.lacks,
        legacy_tables=_legacy_tables(),
        kernel_lacks=tuple(facts_of_kernel(kernel).lacks),
        is_in_kernel=bool(kernel_lacks(taken, kernel, own_namespace=False)),
        instead=works_instead(taken or "auto", kernel),
        remedy=remedy(taken or "auto", kernel),
        forbidding=f"{forbidden[0]}={forbidden[2]}" if forbidden else "",
        has_namespaces=USER_NAMESPACES in sysctls,
    )


def chosen(wanted: str, kernel: KernelOffers, *, own_namespace: bool) -> str:
    """Return the steering that ``run`` would use; empty if ``auto`` finds none."""
    try:
        return choose(wanted, kernel, own_namespace=own_namespace)
    except SteeringError:
        return ""


def judge_offers(offers: Offers, wanted: str, taken: str, *, own_namespace: bool) -> list[Finding]:
    """Report privileges and features, and whether the chosen steering works with them.

    Args:
        wanted: The value of ``--steering``.
        own_namespace: Whether the network namespace was created for this proxy.
    """
    if wanted == "none":
        without = "none: clients dial loopback addresses, no privilege is needed"
        return [ok("steering", without), *_parts(offers)]
    return [
        *_privileges(offers),
        *_libraries(offers, taken),
        *_taken(offers, wanted, taken, own_namespace=own_namespace),
        *_guard(offers, taken),
        *_parts(offers),
    ]


def judge_path(path: str, taken: str) -> list[Finding]:
    """Report a ``--path`` that the chosen steering doesn't support.

    Args:
        taken: The chosen steering; empty if none works here.
    """
    if path == "userspace" or taken in ("nftables", ""):
        return []
    return [
        warning(
            "path",
            f"--path={path} has no effect: steering {taken} has no kernel path, so the proxy "
            "carries all Services",
            hint="--steering=nftables, or --path=userspace",
        )
    ]


def _privileges(offers: Offers) -> Iterator[Finding]:
    lacks = [name for name in _CAPABILITIES.values() if name not in offers.capabilities]
    if not lacks:
        yield ok("privileges", "NET_ADMIN and NET_RAW are present")
        return
    yield error(
        "privileges",
        f"{' and '.join(lacks)} missing: rules and routes can't be read or changed",
        hint="run as root, grant them to the container (securityContext.capabilities.add), "
        "or --steering=none",
    )
    if offers.forbidding:
        name = offers.forbidding.partition("=")[0]
        yield warning(
            "privileges",
            f"{name} forbids user namespaces, so demo and sandbox also need root",
            f"/proc/sys/{name.replace('.', '/')}",
            f"sysctl -w {offers.forbidding}",
        )
    elif offers.has_namespaces:
        yield ok("privileges", "user namespaces are allowed: demo and sandbox work without root")


def _libraries(offers: Offers, taken: str) -> Iterator[Finding]:
    if not offers.nftables_lack:
        yield ok("nftables", "the kernel supports everything that the proxy's rules need")
    elif taken != "nftables":
        yield ok("nftables", f"can't be used: {offers.nftables_lack}")
    if not offers.iptables_lack:
        yield ok("iptables", "python-iptables is available, and the kernel has legacy tables")
    elif taken != "iptables":
        yield ok("iptables", f"can't be used: {offers.iptables_lack}")


def _taken(offers: Offers, wanted: str, taken: str, *, own_namespace: bool) -> Iterator[Finding]:
    lack = {"nftables": offers.nftables_lack, "iptables": offers.iptables_lack}.get(taken, "")
    if taken == "local" and not own_namespace:
        lack = offers.local_lack
    if not taken:
        yield error(
            "steering",
            f"auto finds no working steering: nftables: {offers.nftables_lack or 'works'}; "
            f"iptables: {offers.iptables_lack or 'works'}",
            hint=offers.remedy,
        )
    elif lack:
        yield error("steering", f"{taken} can't work here: {lack}", hint=_remedy(offers, taken))
    elif wanted != "auto":
        yield ok("steering", f"{taken}, as set by --steering")
    else:
        why = taken_reason(taken, offers.legacy_tables, offers, own_namespace=own_namespace)
        yield ok("steering", f"auto chooses {taken}: {why}")


def _guard(offers: Offers, taken: str) -> Iterator[Finding]:
    """Report if rules can't distinguish the proxy's sockets. Source: docs/adr/0013."""
    is_iptables = taken == "iptables"
    if offers.without_xt_socket if is_iptables else offers.without_nft_socket:
        module = "xt_socket" if is_iptables else "nft_socket"
        yield warning(
            "steering",
            f"the kernel has no {module}: after a crash of the proxy, any process on this node "
            "can take its ports and receive its clients' traffic",
            hint=f"modprobe {module}",
        )


def _parts(offers: Offers) -> Iterator[Finding]:
    """Report missing kernel features that the chosen steering can do without."""
    for lack in offers.kernel_lacks:
        yield ok("kernel", lack.words, hint=lack.brings)


def taken_reason(taken: str, legacy: Sequence[str], offers: Offers, *, own_namespace: bool) -> str:
    """Return why ``auto`` chooses a steering."""
    if own_namespace:
        return "this network namespace was created for the proxy"
    if taken == "iptables":
        if legacy:
            return f"this node uses legacy tables already ({', '.join(legacy)})"
        return f"nftables can't be used ({offers.nftables_lack})"
    if legacy:
        return f"legacy tables are in use, but iptables can't be used ({offers.iptables_lack})"
    return "no legacy tables are in use here, and the kernel has nftables"


def _remedy(offers: Offers, taken: str) -> str:
    """Return the remedy: what to install, and a steering that works here."""
    if offers.is_in_kernel:
        return offers.remedy
    return f"{_INSTALL[taken]}; or {offers.remedy}" if offers.instead else _INSTALL[taken]


_INSTALL = {
    "nftables": "modprobe -a nf_tables nft_nat nft_redir; run as root",
    "local": "modprobe nf_tables; run as root; or --steering=none",
    "iptables": "pip install .[iptables] in the checkout; install iptables 1.8.7 or later; "
    "run as root",
}


def _legacy_tables() -> tuple[str, ...]:
    if not has_legacy_tables():
        return ()
    return tuple(dict.fromkeys(name for version in (4, 6) for name in tables_in_use(version)))
