"""Facts from connect() hooks; tests/node has real hooks."""

import asyncio
import errno
import inspect
import logging
import time

import pytest
from msgspec.structs import replace

from tests.port_keys import port_key
from tests.unit.agent.watchers.socket_lb.hooks import CLIENT, FRONTEND, FakeHooks
from userspace_proxy.agent.rounds import tasks
from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.agent.view import view_ports
from userspace_proxy.agent.watchers.kernel_answers import GRACE_S, LOST_MIN, KernelAnswers
from userspace_proxy.agent.watchers.socket_lb import hooked_connections
from userspace_proxy.agent.watchers.socket_lb.hooked_connections import HookedConnections
from userspace_proxy.agent.watchers.socket_lb.hooked_reports import REFUSED
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import say
from userspace_proxy.dataplane import Tuning
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.diagnosis.paths import PathView, format_target
from userspace_proxy.facts import PortState, SourceFacts, StatusFacts
from userspace_proxy.facts.connection import ConnectionFilter
from userspace_proxy.model import DataPath, Frontend, Handling, Protocol, SocketAddress
from userspace_proxy.plane.messages import Returned
from userspace_proxy.status.observing import Collector, Observing
from userspace_proxy.steering import Bind
from userspace_proxy.steering.socket_lb.hooks import Hooks
from userspace_proxy.steering.socket_lb.socket_maps import EventKind, Result
from userspace_proxy_testing.fakes.steering import FakeSteering

from ....plane.probed import Probed
from ...samples import Cluster
from ...watched import until

POD_A, POD_B = SocketAddress("192.0.2.1", 8080), SocketAddress("192.0.2.2", 8080)
NAME = port_key("shop/web")
WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
KERNEL, AUTO = Handling(path=DataPath.KERNEL), Handling(path=DataPath.AUTO)


class Node:
    """A web Service with two endpoints, and hooks."""

    def __init__(self, plane, make, hooks, handling=KERNEL):
        self.plane, self.hooks = plane, hooks
        self.probers = []
        self.failure = REFUSED
        """The failure of probes, except of those to `healthy` endpoints."""
        self.healthy = set()
        """The endpoints whose probes succeed."""
        self.cluster = Cluster()
        self.served_ports = make(Bind.PROXY_PORT)
        self.observing = Observing()
        self.serve(handling)
        self.now = 1000.0
        self.answers = KernelAnswers(
            FakeSteering(),
            self.served_ports,
            lambda: lambda _endpoint, _protocol: None,
            clock=lambda: self.now,
            make_probes=self.make_probes,
        )
        self.connections = self.component()

    def component(self):
        """Return the component of a process that starts now."""
        return HookedConnections(
            self.hooks,
            self.plane,
            self.served_ports,
            self.observing,
            Tuning(),
            self.answers,
            make_probes=self.make_probes,
        )

    def make_probes(self, note):
        self.probers.append(Probed(note))
        return self.probers[-1]

    @property
    def probed(self):
        """The probe connections to the hooks' endpoints."""
        return self.probers[-1]

    def serve(self, handling, *pods):
        pods = pods or (POD_A.ip, POD_B.ip)
        self.served_ports.follow(self.cluster.serve("web", WEB.ip, *pods, handling=handling))
        (self.served,) = self.served_ports

    async def read(self):
        """Read the counters; return the Service port."""
        await self.connections.refresh()
        return self.port

    @property
    def port(self):
        views = view_ports(self.served_ports, self.plane, Bind.PROXY_PORT, WallClock())
        (port,) = diagnose(views, SourceFacts())
        return port

    @property
    def endpoint(self):
        """The first endpoint, as the page shows it."""
        return self.port.endpoints[0]

    def fail(self):
        """Fail a dial of the first endpoint, and finish its probe."""
        self.hooks.fail((NAME, POD_A))
        self.take_events()

    def take_events(self):
        """Handle events, and finish the probes that they start."""
        self.connections._take_events()
        self.probe()

    def probe(self):
        """Finish the pending probes."""
        for probed in self.probers:
            for endpoint in probed.endpoints:
                probed.note(endpoint, None if endpoint in self.healthy else self.failure)


@pytest.fixture
def hooks():
    hooks = FakeHooks(time.monotonic)
    yield hooks
    hooks.close()


@pytest.fixture
def node(plane, make, hooks, monkeypatch):
    monkeypatch.setattr(tasks, "READING_S", 0.0)
    monkeypatch.setattr(tasks, "_READING_SHARE", float("inf"))
    return Node(plane, make, hooks)


@pytest.mark.parametrize(
    "name",
    [
        "counts",
        "ejected",
        "take_events",
        "eject",
        "readmit",
        "observe",
        "not_offloaded",
    ],
)
def test_the_fake_hooks_have_the_signatures_of_the_real_hooks(name):
    fake, real = (inspect.signature(getattr(one, name)) for one in (FakeHooks, Hooks))
    assert list(fake.parameters) == list(real.parameters)


async def test_hooked_connections_are_included_in_the_service_ports_counts(node, hooks):
    hooks.count((NAME, POD_A), established=3, ended=1, received=500, sent=70, latency_ns=6_000_000)
    port = await node.read()
    endpoint = port.endpoints[0]
    assert (endpoint.connections, endpoint.active, endpoint.preserved) == (3, 2, 3)
    assert (endpoint.received_bytes, endpoint.sent_bytes) == (70, 500)
    assert (port.connections, port.active, port.socket_connections) == (3, 2, 3)
    assert port.connect_times.counts[0] == 3
    assert port.connect_times.seconds == pytest.approx(0.006)
    totals = node.plane.state().totals
    assert totals.endpoints.connections == 3


async def test_failed_dials_are_counted_by_cause_and_as_refused_clients(node, hooks):
    hooks.fail((NAME, POD_A))
    hooks.fail((NAME, POD_B), EventKind.UNANSWERED)
    port = await node.read()
    assert dict(port.failures_by_cause) == {"endpoint-refuses": 1, "endpoint-silent": 1}
    assert (port.refused, port.failures, port.last_minute.refused) == (2, 2, 2)


async def test_an_ejection_is_shown_immediately_with_the_userspace_paths_cause(node, hooks, caplog):
    node.fail()
    assert node.endpoint.ejected_for_s == pytest.approx(5.0, abs=1.0)
    cause, state = node.endpoint.cause, node.port.state
    assert cause.row is refuses
    assert cause.get("at") == str(POD_A)
    assert (state.word, state.stated) == (PortState.PARTLY_ANSWERING, [cause])
    (line,) = caplog.records
    assert (line.levelno, line.getMessage()) == (
        logging.WARNING,
        f"{NAME}: endpoint ejected: {say(cause)}",
    )


async def test_a_successful_dial_ends_the_ejection_and_the_failure(node, hooks):
    node.fail()
    hooks.answer((NAME, POD_A))
    node.take_events()
    assert node.endpoint.ejected_for_s is None
    assert node.endpoint.cause is None
    await node.read()
    assert node.endpoint.cause is None
    assert not node.served.group.has_passing


async def test_workers_follow_ejections_of_the_hooks(node, hooks):
    node.fail()
    await node.plane.refresh()
    assert POD_A in node.served.group._ejected.get(0, {})
    hooks.answer((NAME, POD_A))
    node.take_events()
    await node.plane.refresh()
    assert POD_A not in node.served.group._ejected.get(0, {})


async def test_an_endpoint_readmitted_by_a_worker_is_readmitted_by_the_hooks(node, hooks):
    node.fail()
    number = node.served.group.number
    node.plane.receive(0, Returned(number, POD_A))
    assert hooks.readmitted == [(NAME, POD_A)]
    assert POD_A not in node.served.group._ejected.get(hooked_connections._HOOKS, {})
    # Readmitting an endpoint that hooks don't eject must be harmless.
    node.plane.receive(0, Returned(number, POD_B))
    assert hooks.readmitted == [(NAME, POD_A)]


async def test_a_failed_dial_counts_as_a_failed_probe_for_path_auto(node, hooks, make, plane):
    node.serve(AUTO)
    auto = node.served_ports.auto_paths
    auto.note(POD_A, None)
    auto.note(POD_B, None)
    node.served_ports.switch_paths()
    assert node.served.chosen.path is DataPath.KERNEL
    node.fail()
    node.served_ports.switch_paths()
    assert node.served.chosen.path is DataPath.USERSPACE
    assert node.served.chosen.why.startswith(f"auto, and a probe failed: {POD_A} ")
    auto.close()


@pytest.mark.parametrize("dials", [1, 2, 10])
async def test_failed_dials_to_a_healthy_endpoint_are_counted_without_an_ejection(
    node, hooks, make, plane, dials, caplog
):
    node.serve(AUTO)
    auto = node.served_ports.auto_paths
    for pod in (POD_A, POD_B):
        auto.note(pod, None)
    node.served_ports.switch_paths()
    node.healthy.add(POD_A)
    for _ in range(dials):
        hooks.fail((NAME, POD_A))
    node.take_events()
    node.served_ports.switch_paths()
    assert (node.served.chosen.path, caplog.records) == (DataPath.KERNEL, [])
    # No other component probes these addresses any more.
    auto.close()
    port = await node.read()
    assert (port.failures, port.failures_by_cause["endpoint-refuses"]) == (dials, dials)
    assert (node.endpoint.ejected_for_s, node.endpoint.cause, hooks.ejected()) == (None, None, {})
    assert node.served.group.ejected(time.monotonic()) == {}
    # One probe is enough for all clients.
    assert node.probed.begun == 1


async def test_an_endpoint_is_ejected_by_a_probe_if_its_failure_event_was_lost(node, hooks):
    hooks.count((NAME, POD_A), refused=2)
    await node.read()
    assert (hooks.ejected(), node.endpoint.cause) == ({}, None)
    node.probe()
    assert (NAME, POD_A) in hooks.ejected()
    assert node.endpoint.cause.count == 2


@pytest.mark.parametrize(
    ("failed", "is_trouble"),
    [("unanswered", True), ("refused", False)],
)
async def test_unanswered_but_not_refused_dials_to_an_endpoint_that_this_node_reaches_are_reported(
    node, hooks, failed, is_trouble
):
    node.healthy |= {POD_A, POD_B}
    node.served.path = PathView(DataPath.KERNEL)
    hooks.count((NAME, POD_A), **{failed: LOST_MIN})
    await node.read()
    node.probe()
    node.now += GRACE_S
    looking = asyncio.create_task(node.answers.look())
    await until(lambda: looking.done() or any(one.wanted for one in node.probers))
    node.probe()
    await looking
    assert (node.port.unanswered is not None) is is_trouble


async def test_a_successful_probe_after_a_failed_probe_ends_the_ejection(node, hooks):
    node.fail()
    node.healthy.add(POD_A)
    node.fail()
    assert (node.endpoint.ejected_for_s, node.endpoint.cause) == (None, None)
    assert (hooks.ejected(), hooks.readmitted) == ({}, [(NAME, POD_A)])


async def test_a_probe_result_for_a_removed_service_port_ejects_no_endpoint(node, hooks):
    hooks.fail((NAME, POD_A))
    node.connections._take_events()
    node.served_ports.retire(node.served.plan.key)
    node.probed.note(POD_A, REFUSED)
    assert (hooks.ejected(), node.probed.wanted) == ({}, [])


async def test_a_probe_result_for_a_removed_endpoint_ejects_no_endpoint(node, hooks, caplog):
    hooks.fail((NAME, POD_A))
    node.connections._take_events()
    node.serve(KERNEL, POD_B.ip)
    node.probe()
    assert (hooks.ejected(), node.probed.wanted, caplog.messages) == ({}, [], [])


async def test_open_connections_of_an_earlier_process_count_only_as_active(node, hooks):
    hooks.count((NAME, POD_A), established=9, ended=7)
    hooks.inherited = dict(hooks.counted)
    port = await node.read()
    assert (port.connections, port.active) == (0, 2)
    hooks.count((NAME, POD_A), established=1, ended=3)
    port = await node.read()
    assert (port.connections, port.active) == (1, 0)


async def test_ejections_older_than_the_process_are_shown(node, hooks):
    hooks.eject(NAME, POD_A, EventKind.REFUSED)
    node.connections = node.component()
    await node.read()
    assert node.endpoint.ejected_for_s is not None
    hooks.readmit(NAME, POD_A)
    await node.read()
    assert node.endpoint.ejected_for_s is None


async def test_an_ejection_reported_during_a_read_takes_precedence(node, hooks):
    read = hooks.ejected

    def read_and_fail():
        found = read()
        hooks.fail((NAME, POD_A))
        asyncio.run_coroutine_threadsafe(take(), loop).result(60)
        return found

    async def take():
        node.take_events()

    loop, hooks.ejected = asyncio.get_running_loop(), read_and_fail
    await node.connections.refresh()
    assert POD_A in node.served.group._ejected.get(hooked_connections._HOOKS, {})


async def test_a_frontends_target_shows_whether_the_hooks_translate_it(node, hooks):
    (frontend,) = (await node.read()).frontends
    assert frontend.target == format_target(PathView(socket_connections=0), WEB)
    assert node.port.socket_connections == 0
    hooks.left[WEB] = "its source ranges decide by the client's address"
    hooks.state = replace(hooks.state, frontends=0)
    (frontend,) = (await node.read()).frontends
    assert frontend.target.endswith(f" by rules, as {hooks.left[WEB]}")


async def test_the_state_of_the_hooks_is_shown_in_the_node_facts(node, hooks):
    hooks.state = replace(hooks.state, problem="cannot attach connect4: EPERM")
    facts = StatusFacts()
    node.connections.show(facts)
    shown = facts.socket_lb
    assert (shown.is_attached, shown.problem, shown.frontends) == (True, hooks.state.problem, 1)


class Tasks:
    """A supervisor that records tasks instead of running them."""

    def __init__(self):
        self.runs = {}

    def start(self, name, run):
        self.runs[name] = run


async def test_connection_ends_are_observed_while_a_watcher_exists(node, hooks):
    tasks = Tasks()
    await node.connections.start(tasks)
    observe = asyncio.create_task(tasks.runs["socket events"]())
    node.plane.on_observed = lambda message: node.observing.deliver(
        message.records, message.left_out
    )
    await until(lambda: hooks.observed == [False])
    with node.observing.watch(Collector(ConnectionFilter())) as watcher:
        await until(lambda: hooks.observed == [False, True])
        hooks.report(
            (NAME, POD_A),
            EventKind.CONNECTION,
            ns=2_000_000_000,
            waited_ns=1_000_000,
            received=500,
            sent=70,
            result=Result.SERVED,
            tcp_state=5,
        )
        await until(lambda: watcher.records)
    await until(lambda: hooks.observed == [False, True, False])
    (one,) = watcher.records
    assert (one.service, one.client, one.endpoint) == (str(NAME), str(CLIENT), str(POD_A))
    assert (one.frontend, one.source) == (str(FRONTEND), "client")
    assert (one.received_bytes, one.sent_bytes, one.duration_s) == (70, 500, 2.0)
    assert (one.ended_by, one.cause, one.is_failed) == ("client", "complete", False)
    observe.cancel()
    await asyncio.gather(observe, return_exceptions=True)
    assert hooks.observed[-1] is False
    assert not asyncio.get_running_loop().remove_reader(hooks.event_descriptor)


async def test_connection_ends_lost_to_a_full_buffer_are_counted_as_omitted(node, hooks):
    records, filters = node.connections._records, [ConnectionFilter()]
    records.observe(filters)
    hooks.count((NAME, POD_A), established=9, ended=9, lost=4)
    hooks.count((NAME, POD_B), lost=1)
    await node.read()
    await node.read()
    assert records.observe(filters).left_out == [(filters[0], 5)]


async def test_unreadable_hook_counters_keep_the_last_counts(node, hooks, monkeypatch):
    hooks.count((NAME, POD_A), established=3)
    assert (await node.read()).connections == 3

    def counts():
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(hooks, "counts", counts)
    assert (await node.read()).connections == 3
    hooks.state = replace(hooks.state, is_attached=False)
    assert (await node.read()).connections == 3
