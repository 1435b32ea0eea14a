"""The commands of the Service proxies."""

from __future__ import annotations

from pathlib import Path

from .families import FAMILIES
from .node import Site
from .programs import Programs
from .proxies import PROXIES, Start


def command(proxy: str, node: int) -> list[str]:
    site = Site(node, "zone-1", FAMILIES["dual"])
    start = Start(site, Programs(Path("bin"), Path("runc")), Path("kubeconfig"))
    return [str(word) for word in PROXIES[proxy].command(start)]


def test_a_mixed_cluster_has_another_proxy_on_each_node_in_turns() -> None:
    singles = ("kube-proxy", "nftables", "nftables-kernel")
    assert [command("mixed", node) for node in range(1, 7)] == [
        command(single, node) for node, single in enumerate(singles * 2, start=1)
    ]
    assert command("mixed", 1)[0] == "bin/kube-proxy"
    assert "--path=kernel" in command("mixed", 3)


def test_hooks_are_attached_to_the_group_of_the_node_alone() -> None:
    assert [flag for flag in command("nftables-sockets", 1) if "cgroup" in flag] == [
        "--socket-lb-cgroup=/run/cgroup"
    ]
    assert "--socket-lb=required" in command("nftables-sockets", 1)
