"""The life of the agent, on asyncio and on uvloop, without privileges."""

import asyncio
import gc
import socket
import time
import weakref
from pathlib import Path

import pytest

from tests.unit.port_numbers import free_port, is_listening
from userspace_proxy import Options, Proxy, Tuning
from userspace_proxy.agent import agent as agents
from userspace_proxy.agent.rounds.component import Component
from userspace_proxy.causes.slices import slice_rejected
from userspace_proxy.errors import ListenError, SourceError, SteeringError
from userspace_proxy.facts import PortState
from userspace_proxy.kernel.offers import LACKS_NOTHING
from userspace_proxy.model import Frontend, Node, Protocol, ServiceKey, ServiceType
from userspace_proxy.model.reading import LABEL_SERVICE_NAME
from userspace_proxy.plane.adoption import PreviousWorkers
from userspace_proxy.sources import ManifestSource, MemorySource
from userspace_proxy_testing.fakes.steering import FakeSteering

from ..conftest import IN_BOTH_LOOPS
from ..dataplane.waiting import until
from .backends import ask, backend, http_status
from .samples import endpoints, service

pytestmark = IN_BOTH_LOOPS


async def test_settled_raises_an_error_if_the_proxy_stops_before_a_snapshot():
    proxy = Proxy(source=Silent())
    await proxy.start()
    waiting = asyncio.ensure_future(proxy.settled())
    await asyncio.wait({waiting}, timeout=0.01)
    await proxy.stop()
    with pytest.raises(RuntimeError, match="was stopped before"):
        await waiting


class Silent(MemorySource):
    """A source that publishes nothing."""

    async def run(self, publish):
        await asyncio.Event().wait()


async def test_the_hand_over_task_ends_before_the_option_is_awaited_is_called():
    def tasks():
        return {task.get_name() for task in asyncio.all_tasks()}

    options = Options(report_serving=lambda: None, is_awaited=lambda: "hand-over" not in tasks())
    agent = agents.Agent("none", Silent(), options)
    await agent.start()
    assert "hand-over" in tasks()
    assert await agent.is_awaited()
    assert "source" in tasks()
    await agent.stop()


class Routing(Component):
    """A substitute for ClientAddresses that counts its removals; they raise ``error`` if set."""

    error: SteeringError | None = None
    removed = 0

    async def prepare(self, *_args):
        """Do nothing."""

    async def clean_up(self):
        self.removed += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def routing(monkeypatch):
    async def start(*_args):
        return routing

    routing = Routing()
    monkeypatch.setattr(agents, "start_client_addresses", start)
    return routing


@pytest.mark.parametrize("fails", ["nothing", "steering", "routing"])
async def test_stop_closes_ports_before_removing_kernel_state_and_reports_leftovers(routing, fails):
    error = SteeringError("cannot commit: Device or resource busy")

    class Watched(FakeSteering):
        async def clean_up(self):
            listening.append(is_listening(port))
            if fails == "steering":
                raise error

    routing.error = error if fails == "routing" else None
    steering, source, listening = Watched(), MemorySource(), []
    source.put_service(service("web", "10.96.0.1"))
    source.put_slice(endpoints("web", "192.0.2.1"))
    agent = agents.Agent(steering, source, Options())
    await agent.start()
    await agent.settled()
    (port,) = steering.kernel.values()
    assert is_listening(port)
    await agent.stop()
    assert not any(listening)
    assert routing.removed == 1
    assert agent.left_behind is (fails != "nothing")


@pytest.mark.parametrize("is_late", [False, True])
async def test_previous_workers_are_ended_only_after_steering_has_been_applied(
    monkeypatch, caplog, is_late
):
    monkeypatch.setattr(agents, "LAST_ANSWER_S", 0.01)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    previous_workers = PreviousWorkers(asyncio.get_running_loop(), [ours])
    if not is_late:
        previous_workers._workers[0].handed_over.set_result(None)
    had_ended = []

    async def adopt(_label, stack):
        stack.callback(previous_workers.close)
        return previous_workers

    class Watched(FakeSteering):
        async def apply(self, wanted):
            had_ended.append(has_ended(theirs))
            await super().apply(wanted)

    monkeypatch.setattr(agents, "adopt", adopt)
    agent = agents.Agent(Watched(), Silent(), Options(hand_over=lambda _sock: None))
    with theirs:
        await agent.start()
        await agent.stop()
        assert had_ended == [False]
        assert has_ended(theirs)
    assert ("previous workers did not hand over" in caplog.text) is is_late


@pytest.mark.parametrize("has_workers", [False, True])
async def test_clients_wait_on_ports_that_no_worker_handed_over(monkeypatch, has_workers):
    """A worker may exit while it is asked for its sockets."""
    port = free_port()
    steering = FakeSteering(kernel={Frontend("10.96.0.1", 80, Protocol.TCP): port})

    async def adopt(_label, stack):
        ours, theirs = socket.socketpair()
        theirs.close()
        previous_workers = PreviousWorkers(asyncio.get_running_loop(), [ours])
        stack.callback(previous_workers.close)
        assert await previous_workers.adopt() == 0
        return previous_workers if has_workers else None

    async def prepare(*_args):
        pass

    monkeypatch.setattr(agents, "adopt", adopt)
    monkeypatch.setattr(agents, "open_steering", lambda *_args: steering)
    monkeypatch.setattr(agents, "prepare_node", prepare)
    monkeypatch.setattr(agents, "read_offers_for", lambda _wanted: LACKS_NOTHING)
    options = Options(hand_over=lambda _sock: None, proxy_ports=(port, port))
    agent = agents.Agent("nftables", MemorySource(), options)
    await agent.start()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    finally:
        await agent.stop()


def has_ended(worker):
    """Read everything that was sent to a worker; return whether the connection has ended."""
    try:
        while worker.recv(1000):
            pass
    except BlockingIOError:
        return False
    return True


async def test_stop_closes_all_descriptors():
    counts = []
    # Do this twice: the first time, libraries and the loop open descriptors that they keep.
    for _ in range(2):
        async with Proxy(options=Options(admin=("127.0.0.1", 0))) as proxy:
            for i in range(5):
                await proxy.add_service(f"web-{i}", port=8080, endpoints=["127.0.0.1:1"])
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[0] == counts[1]


async def test_a_stopped_proxy_is_freed_after_http_requests():
    source, port = MemorySource(), free_port()
    source.put_service(health_checked(port))
    proxy = Proxy(source=source, options=Options(admin=("127.0.0.1", 0)))
    await proxy.start()
    await proxy.settled()
    assert await http_status(port) == b"503"
    assert await http_status(proxy.admin_address[1]) == b"200"
    gone = weakref.ref(proxy)
    await proxy.stop()
    del proxy
    await asyncio.get_running_loop().run_in_executor(None, gc.collect)
    gc.collect()
    assert gone() is None


async def test_a_source_that_cannot_start_aborts_startup_and_the_proxy_can_be_stopped(tmp_path):
    proxy = Proxy(source=ManifestSource(tmp_path / "absent.yaml"))
    with pytest.raises(SourceError, match=r"absent\.yaml"):
        await proxy.start()
    await proxy.stop()


class Ending(MemorySource):
    """A source that fails."""

    async def run(self, publish):
        raise SourceError("cannot read Services: the disk is gone")


async def test_a_failing_source_raises_its_own_error():
    async with Proxy(source=Ending()) as proxy:
        with pytest.raises(SourceError, match="the disk is gone"):
            await proxy.settled()
        assert isinstance(await proxy.failed(), SourceError)


async def test_with_steering_none_workers_keep_no_capability():
    options = Options(workers=1, preserves_client_address=True)
    async with Proxy(source=MemorySource(), options=options) as proxy:
        (worker,) = proxy.status().workers
        process = Path(f"/proc/{worker.pid}/status")
        await until(lambda: "NoNewPrivs:\t1" in process.read_text())
        assert "CapPrm:\t0000000000000000\n" in process.read_text()


async def test_the_status_contains_the_start_time():
    before = time.time()
    async with Proxy(source=Silent()) as proxy:
        assert proxy.status().started == pytest.approx(before, abs=60)


async def test_the_start_is_logged_with_the_status_page_address_as_text(caplog):
    caplog.set_level("INFO")
    async with Proxy(source=Silent(), options=Options(admin=("127.0.0.1", 0))) as proxy:
        port = proxy.admin_address[1]
    assert [r.page for r in caplog.records if r.message == "started"] == [f"127.0.0.1:{port}"]


async def test_status_lists_the_load_balancers_sending_proxy_protocol():
    options = Options(tuning=Tuning(proxy_protocol_from=("198.51.100.10/32",)))
    async with Proxy(source=Silent(), options=options) as proxy:
        assert proxy.status().part((), (), ()).announcing == ("198.51.100.10/32",)


async def test_services_from_manifests_are_served_and_follow_edits(tmp_path):
    path = tmp_path / "web.yaml"
    async with backend(b"one") as one, backend(b"two") as two:
        path.write_text(manifest(one))
        options = Options(allow_loopback_endpoints=True)
        async with Proxy(source=ManifestSource(path), options=options) as proxy:
            await proxy.settled()
            address = proxy.address_of(ServiceKey("shop", "web"))
            assert address is not None
            assert await ask(address) == b"one"
            path.write_text(manifest(two))
            while await ask(address) != b"two":
                await proxy.settled()
            with pytest.raises(ValueError, match="reads its Services from manifests"):
                await proxy.add_service("more", port=80)


async def test_the_status_of_a_service_reports_the_mistake_in_its_slice(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(manifest("fd00::1:8080"))
    async with Proxy(source=ManifestSource(path)) as proxy:
        await proxy.settled()
        (port,) = proxy.status().ports
        (line,) = proxy.status().source.problems
        cause = slice_rejected("EndpointSlice shop/web-1", line)
        assert (port.state.word, port.state.causes) == (PortState.REFUSED, (cause,))


def manifest(endpoint):
    ip, _, port = endpoint.rpartition(":")
    return f"""
apiVersion: v1
kind: Service
metadata: {{namespace: shop, name: web}}
spec: {{clusterIP: 127.99.1.3, ports: [{{port: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{namespace: shop, name: web-1, labels: {{{LABEL_SERVICE_NAME}: web}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [{ip}]}}]
"""


def health_checked(port):
    """Return a Service whose load balancer probes each node on this port."""
    fields = {"type": ServiceType.LOAD_BALANCER, "is_external_local": True}
    return service("web", "127.99.1.5", health_check_node_port=port, **fields)


@pytest.mark.parametrize("networks", [(), ("primary",), ("127.0.0.0/8",)], ids=str)
async def test_a_health_check_node_port_responds_while_its_service_exists(networks):
    source, port = MemorySource(), free_port()
    source.set_node(Node("node-7", ("127.0.0.1",)))
    source.put_service(health_checked(port))
    source.put_slice(endpoints("web", "127.0.0.9"))
    options = Options(node_name="node-7", node_port_networks=networks)
    async with Proxy(source=source, options=options) as proxy:
        await proxy.settled()
        assert await http_status(port) == b"503"
        source.put_slice(endpoints("web", "127.0.0.9", node="node-7"))
        await proxy.settled()
        assert await http_status(port) == b"200"
        source.delete_service(ServiceKey("shop", "web"))
        await proxy.settled()
        with pytest.raises(ConnectionRefusedError):
            await http_status(port)


async def test_a_failed_start_ends_all_tasks_and_closes_components_in_reverse_order(
    monkeypatch, routing
):
    events = []

    class Noted(Component):
        def __init__(self, name):
            self.name = name

        async def start(self, supervisor):
            events.append(f"start {self.name}")
            supervisor.start(self.name, asyncio.Event().wait)
            if self.name == "b":
                raise ListenError("cannot listen")

        async def close(self):
            events.append(f"close {self.name}")

    monkeypatch.setattr(agents, "components_of", lambda *_: [Noted(name) for name in "abc"])
    with pytest.raises(ListenError):
        await agents.Agent(FakeSteering(), Silent(), Options()).start()
    assert events == ["start a", "start b", "close b", "close a"]
    assert routing.removed == 1
    assert not {"a", "b"} & {task.get_name() for task in asyncio.all_tasks()}
