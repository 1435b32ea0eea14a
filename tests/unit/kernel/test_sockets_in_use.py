from __future__ import annotations

import socket

import pytest

from userspace_proxy.kernel.sockets_in_use import connected_at
from userspace_proxy.model import Frontend, IPFamily, Protocol

LOOPBACK = {IPFamily.IPV4: "127.0.0.1", IPFamily.IPV6: "::1"}
FAMILIES = {IPFamily.IPV4: socket.AF_INET, IPFamily.IPV6: socket.AF_INET6}


@pytest.mark.parametrize("family", IPFamily)
def test_a_frontend_is_in_use_while_a_connection_is_open(node, family):
    with socket.create_server((LOOPBACK[family], 0), family=FAMILIES[family]) as server:
        port = server.getsockname()[1]
        web = Frontend(LOOPBACK[family], port, Protocol.TCP)
        other = Frontend(LOOPBACK[family], 1, Protocol.TCP)
        assert {web, other} & connected_at({web.ip}) == set()
        with socket.create_connection((LOOPBACK[family], port)):
            accepted, _ = server.accept()
            assert {web, other} & connected_at({web.ip}) == {web}
            assert connected_at({"10.96.7.1", "fd00:96::1"}) == set()
            accepted.close()
