"""Whether clients on the kernel path get answers; tests/node has real firewalls."""

import errno
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from userspace_proxy.agent.rounds.auto_paths import AutoPaths
from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.agent.view import view_ports
from userspace_proxy.agent.watchers import kernel_answers
from userspace_proxy.agent.watchers.kernel_answers import (
    AGAIN_S,
    EVERY_S,
    GRACE_S,
    LOST_MIN,
    RETRY_S,
    STALE_S,
    KernelAnswers,
    list_tracked,
)
from userspace_proxy.causes.endpoints import dial_failed, no_datagram
from userspace_proxy.causes.services import forwarding_dropped, forwarding_unanswered
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.errors import SteeringError
from userspace_proxy.facts import LAST_MINUTE_S, Level, PortState, SourceFacts
from userspace_proxy.filters.node import Firewall
from userspace_proxy.kernel import conntrack
from userspace_proxy.kernel.conntrack import PROTOCOL_NUMBERS, DialledBy
from userspace_proxy.kernel.ctnetlink import pack_address
from userspace_proxy.model import (
    DataPath,
    DialFailure,
    Failure,
    Frontend,
    Handling,
    Protocol,
    SocketAddress,
)
from userspace_proxy.model.port_ranges import AskedRange
from userspace_proxy.steering import Bind
from userspace_proxy_testing.fakes.steering import FakeSteering

from ..samples import Cluster

POD = SocketAddress("192.0.2.1", 8080)
IP = "10.96.0.1"
CHAIN = Firewall("ip filter FORWARD", "its policy is drop", "Add an accepting rule")
REFUSED = DialFailure(Failure.REFUSED, errno.ECONNREFUSED)
NOT_KNOWN, DROPPED = forwarding_unanswered(), forwarding_dropped(CHAIN.chain, CHAIN.why, CHAIN.hint)


class Probed:
    """Probes that finish immediately."""

    def __init__(self, note, result):
        self._note, self._result = note, result

    def add(self, endpoint, _service):
        self._note(endpoint, self._result(endpoint))

    def discard(self, _endpoint, _service): ...

    def close(self): ...


class Node:
    """A web Service on the kernel path, the conntrack entries of its clients, and a clock."""

    def __init__(self, plane, make, path, protocol):
        self.plane = plane
        self.now = 1000.0
        self.chain: Firewall | None = None
        self.probe = None
        """The failure of all probes, or a function from endpoint to failure."""
        self.web = Frontend(IP, 80, protocol)
        self.clients = DialledBy({}, {})
        self.served_ports = make(Bind.PROXY_PORT)
        self.served_ports.auto_paths = AutoPaths(
            lambda _note: Probed(lambda *_: None, lambda _: None)
        )
        self.handling, self.cluster = Handling(path=path), Cluster()
        self.serve(POD.ip)
        self.steering = FakeSteering()
        self.steering.counted = {self.web: 0}
        self.answers = KernelAnswers(
            self.steering,
            self.served_ports,
            lambda: lambda _endpoint, _protocol: self.chain,
            track=lambda wanted: dict.fromkeys(wanted, self.clients),
            clock=lambda: self.now,
            make_probes=lambda note: Probed(note, self.result_of),
        )

    def result_of(self, endpoint):
        return self.probe(endpoint) if callable(self.probe) else self.probe

    def serve(self, *pods):
        handling, protocol = self.handling, str(self.web.protocol)
        snapshot = self.cluster.serve("web", IP, *pods, handling=handling, protocol=protocol)
        self.served_ports.follow(snapshot)
        (self.served,) = self.served_ports
        self.served.path = PathView(DataPath.KERNEL)

    async def look(self, begun=0, *, answered=0, own=0, after_s=EVERY_S):
        """Start connections, then check; each answered connection is from another client."""
        self.now += after_s
        self.steering.counted = {self.web: self.steering.counted[self.web] + begun}
        answers, on_node, _ = self.clients
        first = len(answers) + len(on_node)
        self.clients = DialledBy(
            {**answers, **dict.fromkeys(range(first, first + answered), 0)},
            {**on_node, **dict.fromkeys(range(first + answered, first + answered + own), 0)},
            self.clients.silent,
        )
        await self.answers.look()

    async def fail(self, begun=LOST_MIN):
        """Start connections without an answer until the verdict is clear."""
        await self.look()
        for count in (begun, 0):
            await self.look(count)

    @property
    def port(self):
        clock = WallClock(lambda: self.now)
        views = view_ports(self.served_ports, self.plane, Bind.PROXY_PORT, clock)
        (port,) = diagnose(views, SourceFacts())
        return port

    @property
    def chosen(self):
        """The newly chosen path; None if the choice hasn't changed."""
        taken = self.served_ports.auto_paths.take()
        return {key.name.name: decision.path for key, decision in taken.items()}.get("web")


@pytest.fixture
def node(plane, make, request):
    options = {"path": DataPath.KERNEL, "protocol": Protocol.TCP, **getattr(request, "param", {})}
    return Node(plane, make, **options)


def of(**options):
    return pytest.mark.parametrize(
        "node", [options], indirect=True, ids=[" ".join(map(str, options.values()))]
    )


async def test_unanswered_clients_are_reported_if_endpoints_answer_this_node(node, caplog):
    await node.fail()
    state = node.port.state
    assert (state.level, state.word) == (Level.TROUBLE, PortState.NOT_ANSWERING)
    assert state.causes == (NOT_KNOWN,)
    assert "shop/web: kernel path fails" in caplog.text


async def test_unanswered_clients_of_a_port_range_are_not_counted(node):
    """The port that they dialled is unknown."""
    node.handling = replace(node.handling, port_ranges=(AskedRange("80", 80, 90),))
    node.serve(POD.ip)
    (node.web,) = (one for one in node.served.plan.frontends if one.last)
    node.steering.counted = {node.web: 0}
    await node.fail()
    assert node.port.unanswered is None


async def test_the_chain_dropping_their_packets_is_the_cause_of_unanswered_clients(node):
    node.chain = CHAIN
    await node.fail()
    assert node.port.unanswered == DROPPED
    assert node.port.state.hint == CHAIN.hint


@pytest.mark.parametrize(
    ("begun", "seen"),
    [
        pytest.param(9, {"answered": 1}, id="one-answered"),
        pytest.param(9, {"own": 9}, id="all-of-this-node"),
        pytest.param(LOST_MIN - 1, {}, id="few-clients"),
        pytest.param(0, {}, id="no-clients"),
    ],
)
async def test_few_local_or_partly_answered_clients_are_not_reported(node, begun, seen):
    await node.look()
    await node.look(begun, **seen)
    for _ in range(3):
        await node.look()
    assert node.port.unanswered is None


async def test_an_endpoint_failing_this_node_causes_unanswered_clients_despite_a_chain(node):
    node.probe, node.chain = REFUSED, CHAIN
    await node.fail()
    state = node.port.state
    assert (state.level, state.word) == (Level.TROUBLE, PortState.NOT_ANSWERING)
    assert state.causes == (dial_failed(POD, Failure.REFUSED, os.strerror(errno.ECONNREFUSED)),)
    node.probe = None
    await node.look(LOST_MIN, after_s=AGAIN_S)
    await node.look()
    assert node.port.unanswered == DROPPED


SILENT = SocketAddress("192.0.2.2", 8080)


def one_is_silent(node):
    node.serve(POD.ip, SILENT.ip)
    node.clients = DialledBy({}, {}, frozenset([pack_address(*SILENT)]))


async def test_an_endpoint_silent_to_its_clients_and_this_node_is_the_cause(node):
    one_is_silent(node)
    node.probe = {POD: None, SILENT: REFUSED}.get
    for _ in range(3):
        await node.look(9, answered=9)
    state = node.port.state
    assert (state.level, state.word) == (Level.ATTENTION, PortState.PARTLY_ANSWERING)
    assert state.causes == (dial_failed(SILENT, Failure.REFUSED, os.strerror(errno.ECONNREFUSED)),)
    await node.look(after_s=LAST_MINUTE_S)
    assert node.port.unanswered is None


async def test_the_number_of_silent_endpoints_is_recorded_and_stated(node):
    others = [SocketAddress(f"192.0.2.{n}", 8080) for n in (2, 3)]
    node.serve(POD.ip, *(one.ip for one in others))
    node.clients = DialledBy({}, {}, frozenset(pack_address(*one) for one in others))
    node.probe = {POD: None, **dict.fromkeys(others, REFUSED)}.get
    for _ in range(3):
        await node.look(9, answered=9)
    assert node.port.silent_endpoints == 2
    assert node.port.state.sentence.startswith("2 of 3 ")


async def test_an_endpoint_that_answers_this_node_again_is_no_cause(node):
    one_is_silent(node)
    node.probe = {POD: None, SILENT: REFUSED}.get
    for _ in range(3):
        await node.look(9, answered=9)
    assert node.port.unanswered is not None
    node.probe = None
    await node.look(9, answered=9, after_s=AGAIN_S)
    assert node.port.unanswered is None


@of(path=DataPath.AUTO)
async def test_with_path_auto_unanswered_clients_of_a_failing_endpoint_are_not_reported(node):
    node.probe = REFUSED
    await node.fail()
    assert node.port.unanswered is None


async def test_failing_endpoints_are_no_cause_while_few_clients_are_unanswered(node):
    node.probe = REFUSED
    await node.fail(LOST_MIN - 1)
    assert node.port.unanswered is None


async def test_a_dropping_chain_is_the_cause_even_if_another_endpoint_fails_this_node(node):
    node.serve(POD.ip, "192.0.2.2")
    node.probe = {POD: None, SocketAddress("192.0.2.2", 8080): REFUSED}.get
    await node.fail()
    assert node.port.unanswered is None
    node.chain = CHAIN
    await node.look(LOST_MIN, after_s=GRACE_S)
    assert node.port.unanswered == DROPPED


async def test_a_connection_opened_between_both_reads_is_counted_once(node):
    await node.look()
    await node.look(1)
    for _ in range(LOST_MIN + 2):
        await node.look(0, own=1)
        await node.look(1)
    assert node.port.unanswered is None


async def test_a_client_reusing_its_port_counts_as_answered_again(node):
    await node.look()
    for _ in range(3 * LOST_MIN):
        node.clients = DialledBy({7: 120}, {})
        await node.look(1)
    assert node.port.unanswered is None


async def test_a_closed_connection_counts_as_answered_once(node):
    node.clients = DialledBy({7: 120}, {})
    await node.look()
    for passed_s in range(0, 5 * int(EVERY_S), int(EVERY_S)):
        node.clients = DialledBy({7: 118 - passed_s}, {})
        await node.look(1)
    assert node.port.unanswered == NOT_KNOWN


async def test_connections_begun_during_a_long_pause_do_not_count_as_unanswered(node):
    await node.look()
    await node.look(LOST_MIN, after_s=STALE_S + 1)
    for _ in range(3):
        await node.look()
    assert node.port.unanswered is None


async def test_answered_clients_before_a_long_pause_do_not_offset_later_unanswered_clients(node):
    await node.look()
    await node.look(9, answered=9, after_s=STALE_S + 1)
    await node.fail()
    assert node.port.unanswered == NOT_KNOWN


async def test_a_reply_ends_the_suspected_loss(node, caplog):
    caplog.set_level("INFO")
    await node.fail()
    await node.look(1, answered=1)
    assert node.port.unanswered is None
    assert caplog.messages[-1] == "kernel path failures resolved"


async def test_a_port_that_leaves_the_kernel_path_is_not_logged_as_working_again(node, caplog):
    caplog.set_level("INFO")
    await node.fail()
    node.served.path = PathView(DataPath.USERSPACE)
    await node.look()
    assert caplog.messages[-1] == "kernel path failures resolved"


async def test_a_second_outage_is_reported_as_quickly_as_the_first(node):
    await node.fail()
    await node.look(1, answered=1)
    await node.fail()
    assert node.port.unanswered == NOT_KNOWN


async def test_unanswered_clients_before_a_switch_to_userspace_no_longer_count(node):
    await node.look()
    await node.look(LOST_MIN)
    for path in (DataPath.USERSPACE, DataPath.KERNEL):
        node.served.path = PathView(path)
        await node.look()
    assert node.port.unanswered is None


async def test_unanswered_clients_expire_a_minute_after_the_last_client(node):
    await node.fail()
    await node.look(after_s=LAST_MINUTE_S)
    assert node.port.unanswered is None


@of(protocol=Protocol.UDP)
async def test_unanswered_udp_flows_count_only_with_a_dropping_chain(node):
    await node.fail()
    assert node.port.unanswered is None
    node.chain = CHAIN
    await node.look(LOST_MIN, after_s=AGAIN_S)
    await node.look()
    assert node.port.unanswered == DROPPED


@of(protocol=Protocol.UDP, path=DataPath.AUTO)
async def test_a_udp_endpoint_silent_at_two_checks_in_a_row_is_the_cause(node):
    one_is_silent(node)
    await node.look()
    for after_s in (EVERY_S, 60.0):
        await node.look(9, answered=9, after_s=after_s)
        assert node.port.unanswered is None
    await node.look(9, answered=9)
    state = node.port.state
    assert (state.word, state.causes) == (PortState.PARTLY_ANSWERING, (no_datagram(SILENT),))
    node.clients = DialledBy({}, {})
    await node.look(9, answered=9)
    assert node.port.unanswered is None


@of(path=DataPath.AUTO)
@pytest.mark.parametrize("after_s", [EVERY_S, 2 * RETRY_S])
async def test_auto_leaves_the_kernel_path_and_returns_once_no_chain_drops_packets(node, after_s):
    node.chain = CHAIN
    await node.fail()
    (decision,) = node.served_ports.auto_paths.take().values()
    assert decision.path is DataPath.USERSPACE
    assert "chain ip filter FORWARD" in decision.why
    node.served.path = PathView(DataPath.USERSPACE)
    await node.look(after_s=after_s)
    assert node.chosen is None
    node.chain = None
    await node.look()
    assert node.chosen is not None


@of(path=DataPath.AUTO)
async def test_auto_retries_the_kernel_path_after_increasing_pauses_without_a_known_chain(node):
    for pause_s in (RETRY_S, 2 * RETRY_S):
        await node.fail()
        assert node.chosen is DataPath.USERSPACE
        node.served.path = PathView(DataPath.USERSPACE)
        await node.look(after_s=pause_s - 4 * EVERY_S)
        assert node.chosen is None
        await node.look(after_s=4 * EVERY_S)
        assert node.chosen is not None
        node.served.path = PathView(DataPath.KERNEL)


@pytest.mark.parametrize(
    ("answered", "chain", "cause"),
    [
        pytest.param(0, None, NOT_KNOWN, id="none-answered"),
        pytest.param(5, None, None, id="answers-may-be-for-this-node"),
        pytest.param(5, CHAIN, DROPPED, id="a-chain-drops-packets"),
    ],
)
async def test_unanswered_hook_dials_before_an_answer_count_only_with_a_dropping_chain(
    node, answered, chain, cause
):
    node.chain = chain
    node.answers.note_dials(node.served, lost=LOST_MIN)
    node.now += 1.0
    node.answers.note_dials(node.served, answered=answered)
    await node.look()
    assert node.port.unanswered == cause


async def test_a_frontend_with_too_many_clients_counts_as_answered(node, monkeypatch):
    monkeypatch.setattr(kernel_answers, "KNOWN_MAX", 5)
    await node.look()
    await node.look(9, answered=9)
    await node.fail()
    assert node.port.unanswered is None


async def test_a_failed_conntrack_listing_reports_no_unanswered_clients(node):
    def refuse(_wanted):
        raise SteeringError("cannot list conntrack entries")

    node.answers._track = refuse
    await node.fail()
    assert node.port.unanswered is None


@pytest.mark.netns
def test_tracked_clients_are_listed_per_frontend(node, monkeypatch):
    others = Frontend(IP, 80, Protocol.UDP), Frontend("2001:db8::1", 80, Protocol.TCP)
    wanted = dict.fromkeys((node.web, *others), node.served.plan.serving)

    def list_entries(_requests, version, listing):
        for one in wanted:
            if (one.family, PROTOCOL_NUMBERS[one.protocol]) == (version, listing.protocol):
                at = pack_address(*one.address)
                yield SimpleNamespace(
                    client=str(one),
                    dialled=at,
                    answered_from=at,
                    has_answered_client=True,
                    forgotten_in_s=0,
                )

    monkeypatch.setattr(conntrack, "list_entries", list_entries)
    assert list_tracked(wanted) == {one: DialledBy({hash(str(one)): 0}, {}) for one in wanted}
