"""Ejected endpoints that no client dials; what probes them is in ``test_path_probes``."""

import asyncio

import pytest

from tests.port_keys import port_key
from userspace_proxy.model import DialFailure, Failure, Handling, ServiceKey, SocketAddress
from userspace_proxy.model.node_network import DroppedBy, NextHop
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Plane, ejected
from userspace_proxy.plane.ejected import FOLLOWED_MAX, QUIET_S, EjectedEndpoints
from userspace_proxy.plane.messages import Ejected

from .probed import Probed

POD, OTHER = SocketAddress("192.0.2.1", 8080), SocketAddress("192.0.2.2", 8080)
ETH0 = NextHop("eth0")
REFUSED, SILENT = Failure.REFUSED, Failure.SILENT


CHAIN = "nftables chain ip evil out of another program (output, priority 0)"


class Rig:
    """What follows ejections, Services with two endpoints, a clock and a kernel to ask."""

    def __init__(self, plane):
        self.now = 1000.0
        self.plane = plane
        self.services = {}
        self.absent = {}
        self.dropped = {}
        self.questions = 0
        self.probed = None
        self.watcher = EjectedEndpoints(
            plane,
            self.services.get,
            clock=lambda: self.now,
            open_probes=self._open,
            absent_hop=self._ask,
            next_hop={POD.ip: NextHop("eth1")}.get,
            dropped_by=lambda _, endpoint: self.dropped.get(endpoint, ""),
        )
        self.group = self.serve("web")

    def serve(self, name):
        """Return the group of another Service with both endpoints."""
        group = self.plane.open_group(port_key(f"shop/{name}:http"))
        self.plane.serve(group, Serving((POD, OTHER)), {})
        self.services[group] = ServiceKey("shop", name)
        return group

    def eject(self, group=None, pod=POD, failure=REFUSED):
        """Have a worker eject an endpoint because a client's dial failed."""
        group = group or self.group
        group.counters_of(pod).dials.failed(self.now, failure)
        self.plane.receive(0, Ejected(group.number, pod, is_silent=failure is SILENT))

    def pass_(self, seconds):
        self.now += seconds
        self.watcher.look()

    @property
    def wanted(self):
        return self.probed.wanted if self.probed else []

    def _open(self, note):
        self.probed = Probed(note)
        return self.probed

    def _ask(self, ip):
        self.questions += 1
        return self.absent.get(ip)


@pytest.fixture
async def rig():
    plane = Plane(asyncio.get_running_loop())
    yield Rig(plane)
    plane.close()


def test_an_endpoint_is_probed_once_no_client_has_dialled_it_for_a_while(rig):
    rig.eject()
    rig.pass_(QUIET_S - 1)
    assert rig.wanted == []
    rig.pass_(1)
    assert rig.wanted == [(POD, "shop/web")]


def test_an_endpoint_by_name_is_not_probed(rig):
    handling = Handling(found_by_name=(POD.ip,))
    rig.plane.serve(rig.group, Serving((POD, OTHER), handling=handling), {})
    rig.eject()
    rig.eject(pod=OTHER)
    rig.pass_(QUIET_S)
    assert rig.wanted == [(OTHER, "shop/web")]


def test_an_endpoint_that_clients_dial_is_left_to_them(rig):
    for _ in range(5):
        rig.eject()
        rig.pass_(QUIET_S - 1)
    assert rig.wanted == []


def test_an_answer_ends_the_ejection_in_all_workers(rig):
    events = []
    rig.plane.on_ejection.append(lambda _group, pod, is_ejected: events.append((pod, is_ejected)))
    rig.eject()
    rig.pass_(QUIET_S)
    rig.now += 1
    rig.watcher.note(POD, None)
    assert events == [(POD, True), (POD, False)]
    assert not rig.group.counters_of(POD).dials.is_on
    assert rig.wanted == []


def test_a_failure_is_of_now_and_no_client_s(rig):
    rig.eject()
    rig.pass_(QUIET_S)
    before = rig.group.revision
    rig.now += 5
    rig.watcher.note(POD, DialFailure(Failure.HOST_UNREACHABLE))
    dials = rig.group.counters_of(POD).dials
    part = dials.part
    assert (part.failures, part.last_at, part.failure) == (1, rig.now, Failure.HOST_UNREACHABLE)
    assert rig.group.revision > before
    assert rig.wanted == [(POD, "shop/web")], "it is probed further"


def test_a_probe_keeps_it_apart_that_this_node_has_no_route(rig, monkeypatch):
    rig.eject(failure=Failure.NO_ROUTE)
    rig.pass_(QUIET_S)
    monkeypatch.setattr(ejected, "own_route_failure", lambda *_: DialFailure(Failure.NO_ROUTE))
    rig.watcher.note(POD, DialFailure(Failure.NET_UNREACHABLE))
    assert rig.group.counters_of(POD).dials.part.failure == Failure.NO_ROUTE


def test_an_endpoint_that_accepts_and_resets_answers_no_probe(rig):
    rig.eject(failure=Failure.RESET)
    rig.pass_(QUIET_S)
    assert rig.wanted == []


def test_an_answer_says_nothing_once_clients_were_reset(rig):
    rig.eject()
    rig.pass_(QUIET_S)
    rig.group.counters_of(POD).dials.failed(rig.now, Failure.RESET)
    rig.watcher.note(POD, None)
    assert rig.group.counters_of(POD).dials.is_on


def test_a_service_whose_endpoints_can_not_be_probed_has_none_probed(rig):
    rig.services.clear()
    rig.eject()
    rig.pass_(QUIET_S)
    assert rig.wanted == []


def test_an_endpoint_that_leaves_is_forgotten_and_so_is_its_service(rig):
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


def test_two_services_that_share_an_endpoint_both_get_it_back(rig):
    cart = rig.serve("cart")
    for group in (rig.group, cart):
        rig.eject(group)
    rig.pass_(QUIET_S)
    rig.watcher.note(POD, None)
    assert not any(g.counters_of(POD).dials.is_on for g in (rig.group, cart))


def test_the_number_of_endpoints_that_are_followed_has_a_bound(rig, monkeypatch):
    assert FOLLOWED_MAX == 1000
    monkeypatch.setattr(ejected, "FOLLOWED_MAX", 1)
    rig.eject()
    rig.eject(pod=OTHER)
    rig.pass_(QUIET_S)
    assert rig.wanted == [(POD, "shop/web")]


# -- hosts that aren't there -------------------------------------------------


@pytest.mark.parametrize("failure", [SILENT, Failure.HOST_UNREACHABLE])
def test_after_a_dial_without_an_answer_the_kernel_is_asked(rig, failure):
    rig.absent = {POD.ip: ETH0}
    rig.eject(failure=failure)
    rig.eject(pod=OTHER, failure=failure)
    rig.pass_(1)
    assert [rig.group.obstacle_to(pod) for pod in (POD, OTHER)] == [ETH0, None]
    rig.absent = {}
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == ETH0, "the kernel has forgotten it"
    rig.eject(failure=failure)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) is None, "ARP was answered before the next dial"


def test_what_a_worker_has_seen_has_its_link_though_the_kernel_has_forgotten_it(rig):
    rig.eject(failure=Failure.NO_HOST)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == NextHop("eth1")
    assert rig.questions == 0


def test_a_host_that_refuses_is_there(rig):
    rig.absent = {POD.ip: ETH0}
    rig.eject(failure=SILENT)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == ETH0
    rig.eject(failure=REFUSED)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) is None


def test_a_host_that_answers_is_there(rig):
    rig.absent = {POD.ip: ETH0}
    rig.eject(failure=SILENT)
    rig.pass_(QUIET_S)
    rig.watcher.note(POD, None)
    assert rig.group.obstacle_to(POD) is None


def test_of_many_silent_endpoints_some_are_asked_about_in_turns(rig, monkeypatch):
    monkeypatch.setattr(ejected, "QUESTIONS_MAX", 1)
    rig.absent = {OTHER.ip: ETH0}
    rig.eject(failure=SILENT)
    rig.eject(pod=OTHER, failure=SILENT)
    rig.pass_(1)
    assert (rig.questions, rig.group.obstacle_to(OTHER)) == (1, None)
    rig.pass_(1)
    assert (rig.questions, rig.group.obstacle_to(OTHER)) == (2, ETH0)


def test_the_chain_that_drops_packets_to_a_silent_endpoint_is_noted_while_it_does(rig):
    rig.dropped[POD] = CHAIN
    rig.eject(failure=SILENT)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == DroppedBy(CHAIN)
    rig.dropped.clear()
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) is None


def test_a_host_that_is_away_counts_before_a_chain(rig):
    rig.dropped[POD] = CHAIN
    rig.absent[POD.ip] = NextHop("eth0")
    rig.eject(failure=SILENT)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == NextHop("eth0")


@pytest.mark.parametrize("chain", ["", CHAIN])
def test_a_refusal_may_be_the_work_of_a_chain_and_is_no_host_that_is_away(rig, chain):
    rig.dropped[POD] = chain
    rig.absent[POD.ip] = NextHop("eth0")
    rig.eject(failure=REFUSED)
    rig.pass_(1)
    assert rig.group.obstacle_to(POD) == (DroppedBy(chain) if chain else None)
    assert rig.questions == 0
