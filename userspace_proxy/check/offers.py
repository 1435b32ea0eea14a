"""Checks privileges, libraries and kernel features for steering, and reports ``auto``'s choice.

This module also checks the connect() hooks that ``--socket-lb`` requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..agent.node_setup import hook_options
from ..agent.proxy_parts import facts_of_kernel
from ..agent.rounds.options import Options
from ..errors import SteeringError
from ..kernel.offers import LACKS_NOTHING, SOCKET_MATCH, KernelOffers
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
from ..steering.socket_lb import HookOptions, HookPlace, find_place
from .finding import Finding, error, ok, warning

# Source: capabilities(7), include/uapi/linux/capability.h.
_CAPABILITIES = {12: "NET_ADMIN", 13: "NET_RAW"}
# A file in every cgroup except the root. Source: cgroup-v2.rst.
_NOT_IN_THE_ROOT = "cgroup.events"
_NAME_A_FOLDER = "mount the node's root of cgroup v2, as the chart's socketLB does"


@dataclass(frozen=True, slots=True)
class Offers:
    """The privileges, libraries and kernel features of this node."""

    capabilities: tuple[str, ...] = ()
    """Which of NET_ADMIN and NET_RAW this process has."""
    kernel: KernelOffers = LACKS_NOTHING
    lacks: Mapping[str, str] = field(default_factory=dict)
    """By steering mode, why it doesn't work; empty or missing if it works. Local steering is judged
    for a network namespace with other daemons."""
    legacy_tables: tuple[str, ...] = ()
    """Names of the legacy iptables tables in use, in either family."""
    is_in_kernel: bool = False
    """Whether the chosen steering lacks a kernel feature."""
    instead: str = ""
    """A steering mode that works here, other than the chosen mode; empty if none does."""
    remedy: str = ""
    """The remedy if the chosen steering can't work, other than an installation."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """The sysctls that may forbid user namespaces."""

    def lack(self, steering: str) -> str:
        return self.lacks.get(steering, "")


def read_offers(kernel: KernelOffers, taken: str) -> Offers:
    """Return this node's privileges, libraries and kernel features.

    Args:
        taken: The chosen steering; empty if none works here.
    """
    mask = effective_capabilities()
    capabilities = tuple(name for bit, name in _CAPABILITIES.items() if mask >> bit & 1)
    lacks = lacks_of(kernel, own_namespace=False)
    if "NET_ADMIN" not in capabilities:
        lacks |= {"nftables": "NET_ADMIN is missing", "local": ""}
    return Offers(
        capabilities,
        kernel,
        lacks,
        legacy_tables=_legacy_tables(),
        is_in_kernel=bool(kernel_lacks(taken, kernel, own_namespace=False)),
        instead=works_instead(taken or "auto", kernel),
        remedy=remedy(taken or "auto", kernel),
        sysctls=read_sysctls(),
    )


def chosen(wanted: str, kernel: KernelOffers, *, own_namespace: bool) -> str:
    """Return the steering that ``run`` would use; empty if ``auto`` finds none."""
    try:
        return choose(wanted, kernel, own_namespace=own_namespace)
    except SteeringError:
        return ""


def look_at_steering(
    wanted: str, taken: str, options: Options, kernel: KernelOffers, *, own_namespace: bool
) -> list[Finding]:
    """Report whether the chosen steering works here with the chosen options.

    ``wanted`` and ``own_namespace`` are the same as for :func:`judge_offers`.
    """
    offers = read_offers(kernel, taken)
    found = judge_offers(offers, wanted, taken, own_namespace=own_namespace)
    return [*found, *look_at_hooks(hook_options(options), taken, kernel)]


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


def look_at_hooks(
    wanted: HookOptions | None, taken: str, kernel: KernelOffers, names: Path | None = None
) -> list[Finding]:
    """Find the cgroup for the hooks as ``run`` does; report it, or why the hooks can't be used.

    Args:
        wanted: The requested hooks; None without a request.
        taken: The chosen steering; empty if none works here.
    """
    if wanted is None:
        return []
    if taken == "nftables":
        try:
            return judge_place(find_place(wanted, kernel, names))
        except SteeringError as exc:
            what, hint = exc.message, exc.hint
    else:
        flag = f"--socket-lb={'required' if wanted.is_required else 'auto'}"
        what = f"{flag} has no effect: steering {taken or 'none'} has no kernel path"
        hint = "--steering=nftables, or --socket-lb=off"
    return [(error if wanted.is_required else warning)("socket LB", what, hint=hint)]


def judge_place(place: HookPlace) -> list[Finding]:
    """Report other BPF programs at the hooks, and the processes whose dials are translated."""
    cgroup = str(place.cgroup)
    found = [warning("socket LB", one.what, one.where, one.hint) for one in place.others]
    if (place.cgroup / _NOT_IN_THE_ROOT).exists():
        part = (
            "this isn't the root of cgroup v2: only programs in it are translated at connect(), "
            "rules lead the others"
        )
        return [*found, warning("socket LB", part, cgroup, _NAME_A_FOLDER)]
    return [*found, ok("socket LB", "connect() of this node's programs can be translated", cgroup)]


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
    if forbidden := forbidding(offers.sysctls):
        name, _, allowing = forbidden
        yield warning(
            "privileges",
            f"{name} forbids user namespaces, so demo and sandbox also need root",
            f"/proc/sys/{name.replace('.', '/')}",
            f"sysctl -w {name}={allowing}",
        )
    elif USER_NAMESPACES in offers.sysctls:
        yield ok("privileges", "user namespaces are allowed: demo and sandbox work without root")


def _libraries(offers: Offers, taken: str) -> Iterator[Finding]:
    if not offers.lack("nftables"):
        yield ok("nftables", "the kernel supports everything that the proxy's rules need")
    elif taken != "nftables":
        yield ok("nftables", f"can't be used: {offers.lack('nftables')}")
    if not offers.lack("iptables"):
        yield ok("iptables", "python-iptables is available, and the kernel has legacy tables")
    elif taken != "iptables":
        yield ok("iptables", f"can't be used: {offers.lack('iptables')}")


def _taken(offers: Offers, wanted: str, taken: str, *, own_namespace: bool) -> Iterator[Finding]:
    lack = "" if taken == "local" and own_namespace else offers.lack(taken)
    if not taken:
        yield error(
            "steering",
            f"auto finds no working steering: nftables: {offers.lack('nftables') or 'works'}; "
            f"iptables: {offers.lack('iptables') or 'works'}",
            hint=offers.remedy,
        )
    elif lack:
        yield error("steering", f"{taken} can't work here: {lack}", hint=_remedy(offers, taken))
    elif wanted != "auto":
        yield ok("steering", f"{taken}, as set by --steering")
    else:
        why = _taken_reason(taken, offers, own_namespace=own_namespace)
        yield ok("steering", f"auto chooses {taken}: {why}")


def _guard(offers: Offers, taken: str) -> Iterator[Finding]:
    """Warn if rules can't distinguish the proxy's sockets. Source: docs/adr/0013."""
    name, part, module = "nftables", "socket", "nft_socket"
    if taken == "iptables":
        name, part, module = "iptables", SOCKET_MATCH, "xt_socket"
    if part in offers.kernel.lacks and not offers.lack(name):
        yield warning(
            "steering",
            f"the kernel has no {module}: after a crash of the proxy, any process on this node "
            "can take its ports and receive its clients' traffic",
            hint=f"modprobe {module}",
        )


def _parts(offers: Offers) -> Iterator[Finding]:
    """Report missing kernel features without which the chosen steering still works."""
    for lack in facts_of_kernel(offers.kernel).lacks:
        yield ok("kernel", lack.words, hint=lack.brings)


def _taken_reason(taken: str, offers: Offers, *, own_namespace: bool) -> str:
    legacy = ", ".join(offers.legacy_tables)
    if own_namespace:
        return "this network namespace was created for the proxy"
    if taken == "iptables":
        if legacy:
            return f"this node uses legacy tables already ({legacy})"
        return f"nftables can't be used ({offers.lack('nftables')})"
    if legacy:
        return f"legacy tables are in use, but iptables can't be used ({offers.lack('iptables')})"
    return "no legacy tables are in use here, and the kernel has nftables"


def _remedy(offers: Offers, taken: str) -> str:
    """Return the remedy: packages to install, and a steering mode that works here."""
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
