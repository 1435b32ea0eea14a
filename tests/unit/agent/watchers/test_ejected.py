"""Ejected endpoints that no client dials, with real sockets."""

import socket

import pytest

from userspace_proxy import Proxy
from userspace_proxy.agent.watchers import ejected as watcher
from userspace_proxy.agent.watchers.ejected import EjectionProbes
from userspace_proxy.plane import ejected
from userspace_proxy.steering import Bind
from userspace_proxy.steering.none import NoSteering

from ..backends import answers, backend, free_address
from ..samples import Cluster
from ..watched import until


@pytest.mark.parametrize(
    ("protocol", "can_probe", "service"),
    [("TCP", True, "shop/web"), ("UDP", True, "None"), ("TCP", False, "None")],
    ids=["tcp", "udp", "a-dialer-of-the-caller"],
)
async def test_endpoints_are_probed_where_a_connect_shows_something(
    plane, make, protocol, can_probe, service
):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.1", "192.0.2.1", protocol=protocol))
    (served,) = served_ports
    component = EjectionProbes(plane, served_ports, NoSteering(), can_probe=can_probe)
    assert str(component._probed_for(served.group)) == service


async def test_an_endpoint_that_is_back_is_found_without_a_client(monkeypatch):
    monkeypatch.setattr(ejected, "QUIET_S", 0.0)
    monkeypatch.setattr(watcher, "_LOOK_S", 0.01)
    dead = free_address()
    async with backend(b"one") as one, Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=[dead, one])
        assert await answers(web.address, 2) == [b"one"] * 2

        def failing():
            (port,) = proxy.status().ports
            return [e.address for e in port.endpoints if e.cause or e.ejected_for_s is not None]

        assert failing() == [dead]
        host, _, number = dead.rpartition(":")
        with socket.create_server((host, int(number))):
            await until(lambda: not failing())
