"""Checks the privileges, libraries and kernel features for steering, and what ``auto`` chooses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SteeringError
from ..steering.choice import choose, has_legacy_tables, iptables_lacks
from ..steering.iptables import has_socket_match
from ..steering.iptables.legacy import has_legacy_tables_in_kernel, tables_in_use
from ..steering.nftables import missing
from ..steering.others import nft_lacks_for_guard, nft_offers
from .finding import Finding, error, ok, warning

# Source: capabilities(7), include/uapi/linux/capability.h.
_CAPABILITIES = {12: "NET_ADMIN", 13: "NET_RAW"}
# What each keeps from working, and a value that allows it. Source: user_namespaces(7).
_FORBIDDING = {
    "user.max_user_namespaces": ("0", "15000"),
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
}


@dataclass(frozen=True, slots=True)
class Offers:
    """What there is."""

    capabilities: tuple[str, ...] = ()
    """Those of NET_ADMIN and NET_RAW that this process has."""
    nftables_lack: str = ""
    """In words; empty where nftables works."""
    iptables_lack: str = ""
    legacy_tables: tuple[str, ...] = ()
    """In use, of either family, by name."""
    has_legacy_in_kernel: bool = False
    without_nft_socket: bool = False
    """nftables works, but can't tell our sockets from others'."""
    without_xt_socket: bool = False
    """The same of iptables."""
    forbidding: str = ""
    """A sysctl that forbids user namespaces, as ``name=value`` that would allow them."""


def read_offers() -> Offers:
    """Ask kernel and libraries; nothing is started."""
    mask = _capability_mask()
    capabilities = tuple(name for bit, name in _CAPABILITIES.items() if mask >> bit & 1)
    is_admin = "NET_ADMIN" in capabilities
    nftables_lack = missing() or (nft_offers() if is_admin else "NET_ADMIN is missing")
    iptables_lack = iptables_lacks()
    has_legacy = has_legacy_tables_in_kernel()
    return Offers(
        capabilities=capabilities,
        nftables_lack=nftables_lack,
        iptables_lack=iptables_lack,
        without_nft_socket=not nftables_lack and bool(nft_lacks_for_guard()),
        without_xt_socket=not iptables_lack and has_legacy and not has_socket_match(),
        legacy_tables=_legacy_tables(),
        has_legacy_in_kernel=has_legacy,
        forbidding=_forbidding(),
    )


def chosen(wanted: str, *, own_namespace: bool) -> str:
    """Return the steering that ``run`` would take; empty where ``auto`` finds none."""
    try:
        return choose(wanted, own_namespace=own_namespace)
    except SteeringError:
        return ""


def judge_offers(offers: Offers, wanted: str, taken: str, *, own_namespace: bool) -> list[Finding]:
    """Say what there is, and whether the steering that is taken works with it.

    Args:
        offers: What there is.
        wanted: As in ``--steering``.
        taken: What that comes to; empty for none.
        own_namespace: The network namespace was made for this proxy.
    """
    if wanted == "none":
        return [ok("steering", "none: clients dial loopback addresses, no privilege is needed")]
    return [
        *_privileges(offers),
        *_libraries(offers, taken),
        *_taken(offers, wanted, taken, own_namespace=own_namespace),
        *_guard(offers, taken),
    ]


def _privileges(offers: Offers) -> Iterator[Finding]:
    lacks = [name for name in _CAPABILITIES.values() if name not in offers.capabilities]
    if not lacks:
        yield ok("privileges", "NET_ADMIN and NET_RAW are present")
        return
    yield error(
        "privileges",
        f"{' and '.join(lacks)} missing: rules and routes can't be read or changed",
        way_out="run as root, grant them to the container (securityContext.capabilities.add), "
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
    else:
        yield ok("privileges", "user namespaces are allowed: demo and sandbox work without root")


def _libraries(offers: Offers, taken: str) -> Iterator[Finding]:
    if not offers.nftables_lack:
        yield ok("nftables", "the kernel supports everything that the proxy's rules need")
    elif taken != "nftables":
        yield ok("nftables", f"can't be used: {offers.nftables_lack}")
    if not offers.iptables_lack:
        kernel = "" if offers.has_legacy_in_kernel else "; the kernel hasn't loaded ip_tables yet"
        yield ok("iptables", f"python-iptables is available{kernel}")
    elif taken != "iptables":
        yield ok("iptables", f"can't be used: {offers.iptables_lack}")


def _taken(offers: Offers, wanted: str, taken: str, *, own_namespace: bool) -> Iterator[Finding]:
    lack = {"nftables": offers.nftables_lack, "iptables": offers.iptables_lack}.get(taken, "")
    if not taken:
        yield error(
            "steering",
            f"auto finds no working steering: nftables: {offers.nftables_lack or 'works'}; "
            f"iptables: {offers.iptables_lack or 'works'}",
            way_out="run as root or grant NET_ADMIN, modprobe nf_tables, or --steering=none",
        )
    elif lack:
        yield error(
            "steering",
            f"{taken} can't work here: {lack}",
            way_out=_install(taken),
        )
    elif wanted != "auto":
        yield ok("steering", f"{taken}, as set by --steering")
    else:
        why = why_taken(taken, offers.legacy_tables, offers, own_namespace=own_namespace)
        yield ok("steering", f"auto chooses {taken}: {why}")


def _guard(offers: Offers, taken: str) -> Iterator[Finding]:
    """Say where what is steered is admitted to any socket. Source: docs/adr/0013."""
    is_iptables = taken == "iptables"
    if offers.without_xt_socket if is_iptables else offers.without_nft_socket:
        module = "xt_socket" if is_iptables else "nft_socket"
        yield warning(
            "steering",
            f"the kernel has no {module}: after a crash of the proxy, any process on this node "
            "can take its ports and receive its clients' traffic",
            way_out=f"modprobe {module}",
        )


def why_taken(taken: str, legacy: Sequence[str], offers: Offers, *, own_namespace: bool) -> str:
    """Return in words why ``auto`` takes a steering."""
    if own_namespace:
        return "this network namespace was created for the proxy"
    if taken == "iptables":
        if legacy:
            return f"this node uses legacy tables already ({', '.join(legacy)})"
        return f"nftables can't be used ({offers.nftables_lack})"
    if taken == "nftables":
        if legacy:
            return f"legacy tables are in use, but iptables can't be used ({offers.iptables_lack})"
        return "no legacy tables are in use here, and the kernel has nftables"
    return "neither nftables nor iptables can be used"


def _install(taken: str) -> str:
    if taken == "nftables":
        return "modprobe nf_tables nft_nat nft_redir; run as root"
    return (
        "pip install .[iptables] in the checkout; install iptables 1.8.7 or later; run as root; "
        "or --steering=nftables"
    )


def _legacy_tables() -> tuple[str, ...]:
    if not has_legacy_tables():
        return ()
    return tuple(dict.fromkeys(name for version in (4, 6) for name in tables_in_use(version)))


def _capability_mask() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _forbidding() -> str:
    for name, (forbids, allows) in _FORBIDDING.items():
        try:
            value = Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if value == forbids:
            return f"{name}={allows}"
    return ""
