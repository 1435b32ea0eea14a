"""The kernel path on a node without other rules, and clients on that node."""

from __future__ import annotations

import socket

import pytest

from userspace_proxy.steering.nftables.kernel_path import KernelPath


@pytest.fixture
def path(node):
    path = KernelPath("")
    yield path
    path.remove()
    path.close()


@pytest.fixture
def dial(node):
    """Return a function that starts flows from this node, which gets routes for them."""
    node.run(
        "ip link set lo up; ip route add 10.96.0.0/16 dev lo; ip route add 10.244.0.0/16 dev lo; "
        "ip route add fd00:96::/32 dev lo"
    )
    node.run("ip address add fd00::1/128 dev lo nodad")

    def dial(frontend, times=1):
        for _ in range(times):
            kind = socket.AF_INET6 if ":" in frontend.ip else socket.AF_INET
            with socket.socket(kind, socket.SOCK_DGRAM) as flow:
                flow.sendto(b"hello", (frontend.ip, frontend.port))

    return dial
