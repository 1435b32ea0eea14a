"""A cluster's Service proxies: this proxy by steering and path, kube-proxy by mode.

Nodes can have different proxies, as during a migration from kube-proxy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.hooked import flags_for

from .families import host_port, listed
from .groups import MOUNTED
from .node import Site
from .programs import Programs

REPOSITORY = Path(__file__).parents[3]
KUBE_PROXY_USER = "system:kube-proxy"


@dataclass(frozen=True, slots=True)
class Start:
    """The parameters of a proxy on one node."""

    site: Site
    programs: Programs
    kubeconfig: Path

    def common(self) -> list[str]:
        """Return the flags that this proxy and kube-proxy share."""
        families = self.site.families
        return [
            f"--kubeconfig={self.kubeconfig}",
            f"--hostname-override={self.site.name}",
            f"--cluster-cidr={listed(family.pods for family in families)}",
            f"--healthz-bind-address={host_port(families[0].wildcard, 10256)}",
            f"--metrics-bind-address={families[0].loopback}:10249",
        ]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A Service proxy that runs on each node."""

    title: str
    """Its title in a report."""
    user: str
    """The user in its kubeconfig."""
    command: Callable[[Start], Sequence[str | Path]]
    environment: Mapping[str, str] = field(default_factory=dict)


def _ours(steering: str, path: str = "userspace", *, has_hooks: bool = False) -> Proxy:
    def command(start: Start) -> list[str | Path]:
        # kube-proxy serves every external IP, this proxy only external IPs in allowed networks.
        external_ips = listed(family.external_ips for family in start.site.families)
        flags = [
            *start.common(),
            f"--steering={steering}",
            f"--path={path}",
            f"--allow-external-ips={external_ips}",
            # As in upstream's clusters, a pod of another node that dials a node port isn't local.
            "--detect-local-mode=NodeCIDR",
            # The nodes share this machine's folders, so state isn't saved.
            "--state-dir=",
            # Without the role of examples/deploy/wake.yaml, this has no effect.
            "--allow-wake",
            *(flags_for(MOUNTED) if has_hooks else ()),
        ]
        return [sys.executable, "-m", "userspace_proxy", "run", *flags]

    on_path = "" if path == "userspace" else f", path {path}"
    return Proxy(
        f"userspace-proxy, steering {steering}{on_path}{', sockets' if has_hooks else ''}",
        "userspace-proxy",
        command,
        {"PYTHONPATH": str(REPOSITORY)},
    )


def _kube_proxy(mode: str) -> Proxy:
    def command(start: Start) -> list[str | Path]:
        # The machine's conntrack limit must not be changed, and nodes can't change it.
        flags = [*start.common(), f"--proxy-mode={mode}", "--conntrack-max-per-core=0"]
        return [start.programs["kube-proxy"], *flags]

    return Proxy(f"kube-proxy, mode {mode}", KUBE_PROXY_USER, command)


def _mixed(*proxies: Proxy) -> Proxy:
    """Return a proxy that runs the given proxies on the nodes in turn."""

    def command(start: Start) -> Sequence[str | Path]:
        return proxies[(start.site.number - 1) % len(proxies)].command(start)

    titles = "; ".join(proxy.title for proxy in proxies)
    environment = {name: value for proxy in proxies for name, value in proxy.environment.items()}
    # kube-proxy's role includes all rights of this proxy, because a takeover keeps the role.
    return Proxy(f"mixed: {titles}", KUBE_PROXY_USER, command, environment)


_SINGLE = {
    "nftables": _ours("nftables"),
    "nftables-kernel": _ours("nftables", "kernel"),
    "nftables-sockets": _ours("nftables", "kernel", has_hooks=True),
    "nftables-auto": _ours("nftables", "auto"),
    "iptables": _ours("iptables"),
    "local": _ours("local"),
    "kube-proxy": _kube_proxy("nftables"),
    "kube-proxy-iptables": _kube_proxy("iptables"),
}
PROXIES = _SINGLE | {
    "mixed": _mixed(*(_SINGLE[name] for name in ("kube-proxy", "nftables", "nftables-kernel")))
}
"""Proxies by their names on the command line."""
