"""Ejected endpoints that no client dials, and silent endpoints.

The probes of endpoints are tested in ``test_path_probes``.
"""

import socket
from types import SimpleNamespace

import pytest

from tests.port_keys import port_key
from userspace_proxy import Proxy
from userspace_proxy.agent.watchers import ejected
from userspace_proxy.agent.watchers.ejected import FOLLOWED_MAX, QUIET_S, EjectedEndpoints
from userspace_proxy.facts import EndpointCounters, GroupCounters
from userspace_proxy.facts.last_minute import MinuteCounts
from userspace_proxy.model import DialFailure, Failure, Handling, Protocol, SocketAddress
from userspace_proxy.model.node_network import DroppedBy, NextHop
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.messages import (
    Counted,
    Ejected,
    EndpointReport,
    GroupReport,
    Status,
)
from userspace_proxy.steering.base import NoSteering

from ...plane.probed import Probed
from ..backends import answers, backend, free_address
from ..watched import until

POD, OTHER = SocketAddress("192.0.2.1", 8080), SocketAddress("192.0.2.2", 8080)
ETH0 = NextHop("eth0")
REFUSED, SILENT = Failure.REFUSED, Failure.SILENT
CHAIN = "nftables chain ip evil out of another program (output, priority 0)"


class Way(NoSteering):
    """A steering mode that returns which chain drops packets to an endpoint."""

    def __init__(self):
        self.dropped, self.asked = {}, []

    def dropping_chain(self, endpoint, protocol):
        self.asked.append(endpoint)
        return self.dropped.get((endpoint, protocol), "")


class Rig:
    """The component that follows ejections, Services with two endpoints, a clock and a kernel."""

    def __init__(self, plane, *, protocol=Protocol.TCP, can_probe=True):
        self.now = 1000.0
        self.plane = plane
        self.absent = {}
        self.questions = 0
        self.way, self.protocol, self.of_udp = Way(), protocol, []
        self.watcher = EjectedEndpoints(
            plane,
            self,
            self.way,
            can_probe=can_probe,
            clock=lambda: self.now,
            make_probes=self._make_probes,
            absent_hop=self._ask,
            next_hop={POD.ip: NextHop("eth1")}.get,
        )
        self.group = self.serve("web")

    def of_group(self, group):
        """Return a minimal served port of this group."""
        return SimpleNamespace(plan=SimpleNamespace(key=group.key, protocol=self.protocol))

    def serve(self, name):
        """Serve another Service with both endpoints; return its group."""
        group = self.plane.open_group(port_key(f"shop/{name}:http"))
        self.plane.serve(group, Serving((POD, OTHER)), {})
        return group

    def eject(self, group=None, pod=POD, failure=REFUSED):
        """Eject an endpoint as a worker does after a client's dial failed."""
        group = group or self.group
        group.counters_of(pod).dials.failed(self.now, failure)
        self.plane.receive(0, Ejected(group.number, pod, is_silent=failure is SILENT))

    def pass_(self, seconds):
        self.now += seconds
        self.watcher.look()

    @property
    def wanted(self):
        return self.probed.wanted

    def _make_probes(self, note):
        self.probed = Probed(note)
        return self.probed

    def _ask(self, ip):
        self.questions += 1
        return self.absent.get(ip)


@pytest.fixture
def rig(plane):
    return Rig(plane)


def test_an_ejected_endpoint_is_probed_after_a_quiet_period(rig):
    rig.eject()
    rig.pass_(QUIET_S - 1)
    assert rig.wanted == []
    rig.pass_(1)
    assert rig.wanted == [(POD, "shop/web")]


def test_an_endpoint_given_by_name_is_not_probed(rig):
    handling = Handling(found_by_name=(POD.ip,))
    rig.plane.serve(rig.group, Serving((POD, OTHER), handling=handling), {})
    rig.eject()
    rig.eject(pod=OTHER)
    rig.pass_(QUIET_S)
    assert rig.wanted == [(OTHER, "shop/web")]


def test_a_recently_dialled_endpoint_is_not_probed(rig):
    for _ in range(5):
        rig.eject()
        rig.pass_(QUIET_S - 1)
    assert rig.wanted == []


def test_a_successful_probe_ends_the_ejection_in_all_workers(rig):
    events = []
    rig.plane.on_ejection.append(lambda _group, pod, is_ejected: events.append((pod, is_ejected)))
    rig.eject()
    rig.pass_(QUIET_S)
    rig.now += 1
    rig.watcher.note(POD, None)
    assert events == [(POD, True), (POD, False)]
    assert not rig.group.counters_of(POD).dials.is_on
    assert rig.wanted == []


def test_a_failed_probe_updates_the_failure_without_counting_a_client(rig):
    rig.eject()
    rig.pass_(QUIET_S)
    before = rig.group.revision
    rig.now += 5
    rig.watcher.note(POD, DialFailure(Failure.HOST_UNREACHABLE))
    dials = rig.group.counters_of(POD).dials
    part = dials.part
    assert (part.failures, part.last_at, part.failure) == (1, rig.now, Failure.HOST_UNREACHABLE)
    assert rig.group.revision > before
    assert rig.wanted == [(POD, "shop/web")], "the endpoint is still probed"


def test_a_failed_probe_shows_that_this_node_lacks_a_route(rig, monkeypatch):
    rig.eject(failure=Failure.NO_ROUTE)
    rig.pass_(QUIET_S)
    monkeypatch.setattr(ejected, "own_route_failure", lambda *_: DialFailure(Failure.NO_ROUTE))
    rig.watcher.note(POD, DialFailure(Failure.NET_UNREACHABLE))
    assert rig.group.counters_of(POD).dials.part.failure == Failure.NO_ROUTE


def test_an_endpoint_that_resets_accepted_connections_is_not_probed(rig):
    rig.eject(failure=Failure.RESET)
    rig.pass_(QUIET_S)
    assert rig.wanted == []


def test_a_successful_probe_does_not_end_a_streak_of_resets(rig):
    rig.eject()
    rig.pass_(QUIET_S)
    rig.group.counters_of(POD).dials.failed(rig.now, Failure.RESET)
    rig.watcher.note(POD, None)
    assert rig.group.counters_of(POD).dials.is_on


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"protocol": Protocol.UDP}, id="udp"),
        pytest.param({"can_probe": False}, id="a-dialer-of-the-caller"),
    ],
)
def test_udp_endpoints_and_endpoints_of_a_custom_dialer_are_not_probed(plane, given):
    rig = Rig(plane, **given)
    rig.eject()
    rig.pass_(QUIET_S)
    assert rig.wanted == []


def test_endpoints_of_removed_services_and_removed_endpoints_are_no_longer_probed(rig):
    cart = rig.serve("cart")
    for group in (rig.group, cart):
        rig.eject(group)
    rig.pass_(QUIET_S)
    assert rig.wanted == [(POD, "shop/web"), (POD, "shop/cart")]
    rig.plane.serve(rig.group, Serving((OTHER,)), {})
    rig.pass_(1)
    assert rig.wanted == [(POD, "shop/cart")]
    rig.plane.close_group(cart)
    rig.pass_(1)
    assert rig.wanted == []


def test_an_endpoint_that_returns_within_a_minute_is_probed_until_it_answers(rig):
    rig.eject()
    rig.pass_(QUIET_S)
    rig.plane.serve(rig.group, Serving((OTHER,)), {})
    rig.pass_(50)
    assert rig.wanted == []
    for _ in range(2):
        rig.plane.serve(rig.group, Serving((POD, OTHER)), {})
        rig.pass_(1)
        assert rig.wanted == [(POD, "shop/web")]
        rig.plane.serve(rig.group, Serving((OTHER,)), {})
        rig.pass_(30)
    rig.plane.serve(rig.group, Serving((POD, OTHER)), {})
    rig.pass_(1)
    rig.watcher.note(POD, None)
    assert not rig.group.counters_of(POD).dials.is_on
    rig.group.counters_of(POD).dials.failed(rig.now, REFUSED)
    rig.pass_(QUIET_S)
    assert rig.wanted == [], "no worker has ejected it"


@pytest.mark.parametrize("active", [0, 1])
def test_after_a_minute_a_returned_endpoint_is_probed_only_if_it_had_connections(rig, active):
    rig.eject()
    rig.group.counters_of(POD).active = active
    rig.plane.serve(rig.group, Serving((OTHER,)), {})
    rig.pass_(1)
    rig.pass_(60)
    rig.plane.serve(rig.group, Serving((POD, OTHER)), {})
    rig.pass_(QUIET_S)
    assert rig.wanted == [(POD, "shop/web")] * active


def test_two_services_sharing_an_endpoint_both_readmit_it(rig):
    cart, gone = rig.serve("cart"), rig.serve("gone")
    for group in (rig.group, cart, gone):
        rig.eject(group)
    rig.pass_(QUIET_S)
    rig.plane.close_group(gone)
    rig.pass_(1)
    rig.watcher.note(POD, None)
    assert not any(g.counters_of(POD).dials.is_on for g in (rig.group, cart))


def test_the_number_of_watched_endpoints_is_bounded(rig, monkeypatch):
    assert FOLLOWED_MAX == 1000
    monkeypatch.setattr(ejected, "FOLLOWED_MAX", 1)
    rig.eject()
    rig.eject(pod=OTHER)
    rig.pass_(QUIET_S)
    assert rig.wanted == [(POD, "shop/web")]


@pytest.mark.parametrize("failure", [SILENT, Failure.HOST_UNREACHABLE])
def test_after_an_unanswered_dial_the_kernels_neighbour_state_is_read(rig, failure):
    rig.absent = {POD.ip: ETH0}
    rig.eject(failure=failure)
    rig.eject(pod=OTHER, failure=failure)
    rig.pass_(1)
    assert [rig.group.obstacle_to(pod) for pod in (POD, OTHER)] == [ETH0, None]
    rig.absent = {}
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == ETH0, "the kernel has dropped its entry"
    rig.eject(failure=failure)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) is None, "ARP was answered before the next dial"


def test_the_link_to_an_absent_host_reported_by_a_worker_is_shown_without_a_kernel_query(rig):
    rig.eject(failure=Failure.NO_HOST)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == NextHop("eth1")
    assert rig.questions == 0


def test_a_refusal_clears_the_missing_next_hop(rig):
    rig.absent = {POD.ip: ETH0}
    rig.eject(failure=SILENT)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == ETH0
    rig.eject(failure=REFUSED)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) is None


def test_a_successful_probe_clears_the_missing_next_hop(rig):
    rig.absent = {POD.ip: ETH0}
    rig.eject(failure=SILENT)
    rig.pass_(QUIET_S)
    rig.watcher.note(POD, None)
    assert rig.group.obstacle_to(POD) is None


def test_neighbour_queries_for_many_silent_endpoints_are_rotated(rig, monkeypatch):
    monkeypatch.setattr(ejected, "QUESTIONS_MAX", 1)
    rig.absent = {OTHER.ip: ETH0}
    rig.eject(failure=SILENT)
    rig.eject(pod=OTHER, failure=SILENT)
    rig.pass_(1)
    assert (rig.questions, rig.group.obstacle_to(OTHER)) == (1, None)
    rig.pass_(1)
    assert (rig.questions, rig.group.obstacle_to(OTHER)) == (2, ETH0)


def test_a_missing_next_hop_takes_precedence_over_a_dropping_chain(rig):
    rig.way.dropped[POD, Protocol.TCP] = CHAIN
    rig.absent[POD.ip] = NextHop("eth0")
    rig.eject(failure=SILENT)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == NextHop("eth0")


@pytest.mark.parametrize("chain", ["", CHAIN], ids=["no-chain", "a-chain"])
def test_a_refusal_may_be_caused_by_a_chain_but_not_by_a_missing_next_hop(rig, chain):
    rig.way.dropped[POD, Protocol.TCP] = chain
    rig.absent[POD.ip] = NextHop("eth0")
    rig.eject(failure=REFUSED)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == (DroppedBy(chain) if chain else None)
    assert rig.questions == 0


async def test_recovery_of_an_endpoint_is_detected_without_a_client(monkeypatch):
    monkeypatch.setattr(ejected, "QUIET_S", 0.0)
    monkeypatch.setattr(ejected, "_LOOK_S", 0.01)
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


class SilentRig(Rig):
    """A UDP Service port with two endpoints; a chain drops the packets to them."""

    def __init__(self, plane):
        super().__init__(plane, protocol=Protocol.UDP)
        self.of_udp = [SimpleNamespace(group=self.group)]
        self.way.dropped = {(POD, Protocol.UDP): CHAIN, (OTHER, Protocol.UDP): CHAIN}

    def miss(self, endpoint):
        """Record a flow that got no reply from an endpoint."""
        self.group.counters_of(endpoint).ended_unanswered(self.now, Failure.NO_DATAGRAM)
        self.group.last_minute.add(MinuteCounts(1, unanswered=1), self.now)

    def look(self, seconds=1):
        self.pass_(seconds)
        return [self.group.obstacle_to(endpoint) for endpoint in (POD, OTHER)]


@pytest.fixture
def silent(plane):
    return SilentRig(plane)


def test_a_dropping_chain_is_named_while_open_connections_to_its_endpoint_are_stalled(rig):
    rig.way.dropped[POD, Protocol.TCP] = CHAIN
    for change, obstacle in ((1, DroppedBy(CHAIN)), (-1, None)):
        counted = EndpointCounters()
        counted.stalled = change
        each = EndpointReport(POD, counted.figures())
        report = GroupReport(rig.group.number, GroupCounters().figures(), [each])
        rig.plane.receive(0, Counted(0, [report], Status()))
        rig.pass_(1)
        assert rig.group.obstacle_to(POD) == obstacle


def test_a_chain_is_shown_only_while_it_drops_packets_of_a_silent_endpoint(silent):
    silent.miss(POD)
    silent.way.dropped.clear()
    assert silent.look() == [None, None]
    silent.way.dropped[POD, Protocol.UDP] = CHAIN
    assert silent.look() == [DroppedBy(CHAIN), None]
    silent.way.dropped.clear()
    assert silent.look() == [None, None]


@pytest.mark.parametrize("end", ["answered", "a-minute", "removed"])
def test_a_silent_endpoint_shows_no_chain_after_its_recovery_removal_or_a_minute(silent, end):
    silent.miss(POD)
    assert silent.look() == [DroppedBy(CHAIN), None]
    if end == "answered":
        silent.group.counters_of(POD).ends.succeeded_at = silent.now + 0.5
    elif end == "removed":
        silent.of_udp.clear()
    assert silent.look(60 if end == "a-minute" else 1) == [None, None]


def test_an_endpoint_that_turns_from_silent_to_absent_shows_a_next_hop_and_no_chain(silent):
    silent.miss(POD)
    assert silent.look() == [DroppedBy(CHAIN), None]
    silent.group.counters_of(POD).dials.failed(silent.now, Failure.NO_HOST)
    silent.group.note_obstacle(POD, NextHop("cni0"))
    assert silent.look() == [NextHop("cni0"), None]
    assert silent.way.asked == [POD]
    silent.group.note_obstacle(POD, None)
    assert silent.look() == [None, None]


def test_chain_queries_per_check_are_bounded_and_the_next_check_continues(silent, monkeypatch):
    monkeypatch.setattr(ejected, "QUESTIONS_MAX", 1)
    silent.miss(POD)
    silent.miss(OTHER)
    silent.look()
    silent.look()
    assert {*silent.way.asked} == {POD, OTHER}
