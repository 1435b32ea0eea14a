"""Ejected endpoints that no client dials, with real sockets, and silent ones of UDP."""

import asyncio
import socket

import pytest

from tests.port_keys import port_key
from userspace_proxy import Proxy
from userspace_proxy.agent.watchers import ejected as watcher
from userspace_proxy.agent.watchers.ejected import EjectionProbes, SilentEndpoints
from userspace_proxy.facts.last_minute import MinuteCounts
from userspace_proxy.model import Failure, SocketAddress
from userspace_proxy.model.node_network import DroppedBy, NextHop
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Plane, ejected
from userspace_proxy.steering import Bind
from userspace_proxy.steering.base import NoSteering

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


DNS, OTHER = SocketAddress("192.0.2.1", 53), SocketAddress("192.0.2.2", 53)
CHAIN = "chain ip evil in drops its answers"


class Rig:
    """A UDP Service port with two endpoints, a clock and rules to ask about."""

    def __init__(self, plane):
        self.now = 1000.0
        self.dropped = {DNS: CHAIN, OTHER: CHAIN}
        self.asked = []
        self.group = plane.open_group(port_key("shop/dns:dns"))
        plane.serve(self.group, Serving((DNS, OTHER)), {})
        self.flows = SilentEndpoints(self._ask, clock=lambda: self.now)

    def miss(self, endpoint):
        """Have a flow of an endpoint go without an answer."""
        self.group.counters_of(endpoint).ended_unanswered(self.now, Failure.NO_DATAGRAM)
        self.group.last_minute.add(MinuteCounts(1, unanswered=1), self.now)

    def look(self, seconds=1):
        self.now += seconds
        self.flows.look([self.group])
        return [self.group.obstacle_to(endpoint) for endpoint in (DNS, OTHER)]

    def _ask(self, group, endpoint):
        self.asked.append((group, endpoint))
        return self.dropped.get(endpoint, "")


@pytest.fixture
async def rig():
    plane = Plane(asyncio.get_running_loop())
    yield Rig(plane)
    plane.close()


def test_a_rule_is_named_at_the_endpoint_that_is_silent_and_at_no_other(rig):
    rig.miss(DNS)
    assert rig.look() == [DroppedBy(CHAIN), None]
    assert rig.asked == [(rig.group, DNS)]


def test_without_such_a_rule_nothing_is_noted_and_once_it_is_gone_no_more(rig):
    rig.miss(DNS)
    rig.dropped.clear()
    assert rig.look() == [None, None]
    rig.dropped[DNS] = CHAIN
    assert rig.look() == [DroppedBy(CHAIN), None]
    rig.dropped.clear()
    assert rig.look() == [None, None]


@pytest.mark.parametrize("end", ["answered", "a-minute", "removed"])
def test_it_is_over_with_the_silence(rig, end):
    rig.miss(DNS)
    assert rig.look() == [DroppedBy(CHAIN), None]
    if end == "answered":
        rig.group.counters_of(DNS).ends.succeeded_at = rig.now + 0.5
    groups = [] if end == "removed" else [rig.group]
    rig.now += 60 if end == "a-minute" else 1
    rig.flows.look(groups)
    assert rig.group.obstacle_to(DNS) is None


def test_what_ejected_endpoints_have_is_left_alone(rig):
    rig.miss(DNS)
    rig.group.counters_of(DNS).dials.failed(rig.now, Failure.REFUSED)
    rig.group.note_obstacle(DNS, DroppedBy("another"))
    assert rig.look() == [DroppedBy("another"), None]
    assert rig.asked == []


def test_one_that_is_found_absent_after_it_was_silent_is_so_still(rig):
    rig.miss(DNS)
    assert rig.look() == [DroppedBy(CHAIN), None]
    rig.group.counters_of(DNS).dials.failed(rig.now, Failure.NO_HOST)
    rig.group.note_obstacle(DNS, NextHop("cni0"))
    assert rig.look() == [NextHop("cni0"), None]
    rig.group.note_obstacle(DNS, None)
    assert rig.look() == [None, None]


def test_a_look_asks_a_bounded_number_of_times_and_the_next_one_goes_on(rig, monkeypatch):
    monkeypatch.setattr(watcher, "QUESTIONS_MAX", 1)
    rig.miss(DNS)
    rig.miss(OTHER)
    rig.look()
    rig.look()
    assert {endpoint for _, endpoint in rig.asked} == {DNS, OTHER}
