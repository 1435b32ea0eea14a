"""The embeddable class, on asyncio and on uvloop, without privileges."""

import asyncio
import gc
import socket
import weakref
from pathlib import Path

import pytest
import uvloop

from userspace_proxy import Options, Proxy
from userspace_proxy.agent import proxy as proxies
from userspace_proxy.dataplane import Tuning
from userspace_proxy.errors import ListenError, SourceError
from userspace_proxy.model import Frontend, Node, Protocol, ServiceKey, ServiceType
from userspace_proxy.sources import ManifestSource, MemorySource
from userspace_proxy.testing.fake_steering import FakeSteering

from ..dataplane.house import no_descriptors
from .backends import Interfaces, answers, ask, backend, free_address, free_port, http_status
from .samples import endpoints, service


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine in a loop of each kind."""

    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(main, 20))

    return run


def test_connections_go_round_robin_over_the_endpoints(run):
    async def main():
        async with backend(b"one") as one, backend(b"two") as two, Proxy() as proxy:
            web = await proxy.add_service("web", port=8080, endpoints=[one, two])
            assert sorted(await answers(web.address, 4)) == [b"one", b"one", b"two", b"two"]

    run(main())


def test_each_service_keeps_the_port_that_was_asked_for(run):
    async def main():
        async with backend(b"one") as one, Proxy() as proxy:
            web = await proxy.add_service("web", port=8080, endpoints=[one])
            cart = await proxy.add_service("cart", port=8080, endpoints=[one])
            assert web.address.port == cart.address.port == 8080
            assert web.address.ip != cart.address.ip
            assert web.address.ip.startswith("127.")

    run(main())


def test_a_port_that_is_taken_is_replaced_by_a_free_one(run):
    async def main():
        with socket.create_server(("127.99.1.1", 8080)):
            async with backend(b"one") as one, Proxy() as proxy:
                web = await proxy.add_service(
                    "web", port=8080, endpoints=[one], cluster_ip="127.99.1.1"
                )
                assert web.address.ip == "127.99.1.1"
                assert web.address.port != 8080
                assert await ask(web.address) == b"one"

    run(main())


def test_a_dead_endpoint_costs_no_request(run):
    async def main():
        async with backend(b"one") as one, Proxy() as proxy:
            web = await proxy.add_service("web", port=8080, endpoints=[free_address(), one])
            assert await answers(web.address, 6) == [b"one"] * 6
            failures = {e.failures for e in proxy.status().ports[0].endpoints}
            assert failures == {0, 1}

    run(main())


def test_without_endpoints_clients_are_refused_until_there_is_one_at_the_same_address(run):
    async def main():
        async with backend(b"one") as one, Proxy() as proxy:
            web = await proxy.add_service("web", port=8080)
            before = web.address
            with pytest.raises(ConnectionRefusedError):
                await ask(web.address)
            await web.set_endpoints([one])
            assert await ask(web.address) == b"one"
            await web.set_endpoints([])
            with pytest.raises(ConnectionRefusedError):
                await ask(web.address)
            assert web.address == before

    run(main())


def test_a_removed_service_is_refused_and_its_open_connections_go_on(run):
    async def main():
        async def echo(reader, writer):
            writer.write(await reader.readexactly(4))
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        endpoint = "{}:{}".format(*server.sockets[0].getsockname())
        async with server, Proxy() as proxy:
            web = await proxy.add_service("web", port=8080, endpoints=[endpoint])
            address = web.address
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"ab")
            await web.remove()
            with pytest.raises(ConnectionRefusedError):
                await ask(address)
            writer.write(b"cd")
            assert await reader.read() == b"abcd"
            writer.close()
            with pytest.raises(LookupError):
                _ = web.address

    run(main())


def test_a_service_that_is_added_again_has_its_new_endpoints_alone(run):
    async def main():
        async with backend(b"one") as one, backend(b"two") as two, Proxy() as proxy:
            await proxy.add_service("web", port=8080, endpoints=[one])
            web = await proxy.add_service("web", port=8080, endpoints=[two])
            assert await answers(web.address, 4) == [b"two"] * 4

    run(main())


def test_two_proxies_with_a_service_of_one_name_each_reach_their_own_backends(run):
    async def main():
        async with backend(b"one") as one, backend(b"two") as two, Proxy() as p, Proxy() as q:
            first = await p.add_service("web", port=8080)
            second = await q.add_service("web", port=8080, endpoints=[two])
            with pytest.raises(ConnectionRefusedError):
                await ask(first.address)
            await first.set_endpoints([one])
            assert first.address != second.address
            assert await answers(first.address, 2) == [b"one"] * 2
            assert await answers(second.address, 2) == [b"two"] * 2

    run(main())


def test_an_address_that_another_proxy_holds_without_endpoints_stays_its_own(run):
    async def main():
        async with backend(b"one") as one, backend(b"two") as two, Proxy() as p, Proxy() as q:
            first = await p.add_service("web", port=8080, cluster_ip="127.99.1.5")
            second = await q.add_service("web", port=8080, cluster_ip="127.99.1.5", endpoints=[two])
            assert first.address.port == 8080
            assert second.address.port != 8080
            await first.set_endpoints([one])
            assert await ask(first.address) == b"one"
            assert await ask(second.address) == b"two"

    run(main())


def test_a_service_that_is_replaced_keeps_its_address(run):
    async def main():
        async with backend(b"one") as one, Proxy() as proxy:
            before = await proxy.add_service("web", port=8080)
            after = await proxy.add_service("web", port=8080, endpoints=[one])
            assert after.address == before.address

    run(main())


def test_the_handle_of_a_replaced_service_changes_nothing(run):
    async def main():
        async with backend(b"one") as one, Proxy() as proxy:
            before = await proxy.add_service("web", port=8080)
            after = await proxy.add_service("web", port=8081, endpoints=[one])
            with pytest.raises(LookupError, match="default/web was removed or replaced"):
                await before.set_endpoints(["127.0.0.1:1"])
            await before.remove()
            assert await ask(after.address) == b"one"
            assert after.address.port == 8081

    run(main())


def test_endpoints_that_can_not_be_served_raise_what_the_status_says(run):
    async def main():
        async with Proxy() as proxy:
            dns = await proxy.add_service("dns", port=5353, protocol="UDP")
            with no_descriptors():
                with pytest.raises(ListenError) as caught:
                    await dns.set_endpoints(["127.0.0.1:53"])
                assert str(caught.value) == proxy.status().ports[0].problem
                assert caught.value.hint.startswith("this process is out of descriptors")
            await dns.set_endpoints(["127.0.0.1:54"])
            assert proxy.status().ports[0].problem == ""

    run(main())


def test_a_service_that_can_not_be_replaced_is_served_as_before(run):
    async def main():
        options = Options(proxy_ports=(29990, 29990))
        taken = ("127.99.1.6", 8080), ("127.99.1.6", 29990)
        with socket.create_server(taken[0]), socket.create_server(taken[1]):
            async with backend(b"one") as one, Proxy(options=options) as proxy:
                web = await proxy.add_service("web", port=8080, endpoints=[one])
                with pytest.raises(ListenError):
                    await proxy.add_service("web", port=8080, cluster_ip="127.99.1.6")
                assert await ask(web.address) == b"one"

    run(main())


def test_who_waits_for_a_change_is_told_when_the_proxy_stops(run):
    async def main():
        proxy = Proxy(source=Silent())
        await proxy.start()
        waiting = asyncio.ensure_future(proxy.settled())
        await asyncio.wait({waiting}, timeout=0.01)
        await proxy.stop()
        with pytest.raises(RuntimeError, match="was stopped before"):
            await waiting

    run(main())


class Silent(MemorySource):
    """A source that never has anything to say."""

    async def run(self, publish):
        await asyncio.Event().wait()


def test_a_removed_service_is_not_revived_by_its_handle(run):
    async def main():
        async with Proxy() as proxy:
            web = await proxy.add_service("web", port=8080)
            await web.remove()
            with pytest.raises(LookupError, match="default/web was removed"):
                await web.set_endpoints(["127.0.0.1:1"])
            assert proxy.status().ports == ()

    run(main())


def test_stopping_leaves_no_descriptor_behind(run):
    async def main():
        counts = []
        # Twice: the first time libraries and the loop open what they keep.
        for _ in range(2):
            async with Proxy(options=Options(admin=("127.0.0.1", 0))) as proxy:
                for i in range(5):
                    await proxy.add_service(f"web-{i}", port=8080, endpoints=["127.0.0.1:1"])
            counts.append(len(list(Path("/proc/self/fd").iterdir())))
        assert counts[0] == counts[1]

    run(main())


def test_stopping_leaves_no_object_behind(run):
    async def main():
        proxy = Proxy()
        await proxy.start()
        await proxy.add_service("web", port=8080)
        gone = weakref.ref(proxy)
        await proxy.stop()
        del proxy
        await asyncio.get_running_loop().run_in_executor(None, gc.collect)
        gc.collect()
        assert gone() is None

    run(main())


def test_stopping_leaves_no_object_behind_when_it_was_asked_over_http_either(run):
    async def main():
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

    run(main())


def test_a_drain_waits_for_open_connections(run):
    async def main():
        answered = asyncio.Event()

        async def slow(reader, writer):
            await answered.wait()
            writer.write(b"late")
            writer.close()

        server = await asyncio.start_server(slow, "127.0.0.1", 0)
        endpoint = "{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            proxy = Proxy()
            await proxy.start()
            web = await proxy.add_service("web", port=8080, endpoints=[endpoint])
            asking = asyncio.create_task(ask(web.address))
            while not proxy.status().ports[0].connections:
                await asyncio.wait({asking}, timeout=0.01)
            stopping = asyncio.create_task(proxy.stop(drain_s=10))
            answered.set()
            assert await asking == b"late"
            await stopping

    run(main())


def test_a_connection_that_outlives_the_drain_is_reset(run):
    async def main():
        hold = asyncio.Event()

        async def silent(_reader, writer):
            await hold.wait()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        endpoint = "{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            proxy = Proxy()
            await proxy.start()
            web = await proxy.add_service("web", port=8080, endpoints=[endpoint])
            asking = asyncio.create_task(ask(web.address))
            while not proxy.status().ports[0].connections:
                await asyncio.wait({asking}, timeout=0.01)
            await proxy.stop(drain_s=0)
            with pytest.raises(ConnectionResetError):
                await asking
            hold.set()

    run(main())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"port": 0}, "port: 0 is not in 1–65535", id="port-zero"),
        pytest.param({"port": 80, "protocol": "SCTP"}, "'SCTP' is not TCP or UDP", id="protocol"),
        pytest.param({"port": 80, "endpoints": ["web"]}, "expected ip:port", id="no-port"),
        pytest.param(
            {"port": 80, "endpoints": ["192.0.2.01:80"]}, "is not an IP address", id="leading-zero"
        ),
        pytest.param({"port": 80, "cluster_ip": "x"}, "'x' is not an IP address", id="cluster-ip"),
    ],
)
def test_a_wrong_argument_is_named(run, arguments, words):
    async def main():
        async with Proxy() as proxy:
            with pytest.raises(ValueError, match=words):
                await proxy.add_service("web", **arguments)
            assert proxy.status().ports == ()

    run(main())


def test_a_headless_address_without_a_free_port_is_an_error_and_nothing_stays(run):
    async def main():
        options = Options(proxy_ports=(29990, 29990))
        with (
            socket.create_server(("127.99.1.2", 8080)),
            socket.create_server(("127.99.1.2", 29990)),
        ):
            async with Proxy(options=options) as proxy:
                with pytest.raises(ListenError):
                    await proxy.add_service("web", port=8080, cluster_ip="127.99.1.2")
                assert proxy.status().ports == ()

    run(main())


def test_a_source_that_cannot_begin_ends_the_start_and_leaves_nothing(run, tmp_path):
    async def main():
        proxy = Proxy(source=ManifestSource(tmp_path / "absent.yaml"))
        with pytest.raises(SourceError, match=r"absent\.yaml"):
            await proxy.start()
        await proxy.stop()

    run(main())


class Ending(MemorySource):
    """A source that can't go on."""

    async def run(self, publish):
        raise SourceError("cannot read Services: the disk is gone")


def test_a_source_that_cannot_go_on_fails_with_its_own_words(run):
    async def main():
        async with Proxy(source=Ending()) as proxy:
            with pytest.raises(SourceError, match="the disk is gone"):
                await proxy.settled()
            assert isinstance(await proxy.failed(), SourceError)

    run(main())


def test_services_of_manifests_are_served_and_edits_followed(run, tmp_path):
    async def main():
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

    run(main())


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
metadata: {{namespace: shop, name: web-1, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [{ip}]}}]
"""


def test_a_silent_endpoint_is_left_after_the_connect_timeout(run):
    async def main():
        # Nobody takes connections from this queue of one: further SYNs get no answer.
        silent = socket.create_server(("127.0.0.1", 0), backlog=0)
        address = silent.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        options = Options(tuning=Tuning(connect_timeout_s=0.1))
        async with backend(b"one") as one, Proxy(options=options) as proxy:
            web = await proxy.add_service(
                "web", port=8080, endpoints=["{}:{}".format(*address), one]
            )
            assert await answers(web.address, 4) == [b"one"] * 4
            ejected = [e.ejected_for_s for e in proxy.status().ports[0].endpoints]
            assert sum(e is not None for e in ejected) == 1
        for sock in (*fillers, silent):
            sock.close()

    run(main())


# -- of this node ----------------------------------------------------------------


def test_without_steering_a_node_port_is_served_on_loopback(run):
    async def main():
        async with backend(b"one") as one, Proxy() as proxy:
            ip, _, target = one.rpartition(":")
            port = free_port()
            web = service("web", "127.99.1.4", port=8080, node_port=port)
            await proxy.put(web, [endpoints("web", ip, port=int(target))])
            assert await ask(("127.0.0.1", port)) == b"one"

    run(main())


def health_checked(port):
    """A Service whose load balancer asks each node at this port."""
    fields = {"type": ServiceType.LOAD_BALANCER, "is_external_local": True}
    return service("web", "127.99.1.5", health_check_node_port=port, **fields)


@pytest.mark.parametrize("networks", [(), ("primary",), ("127.0.0.0/8",)], ids=str)
def test_a_health_check_node_port_answers_while_its_service_has_one(run, networks):
    async def main():
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

    run(main())


def test_node_ports_follow_the_addresses_of_the_node(run, monkeypatch):
    interfaces, steering, port = Interfaces(), FakeSteering(), free_port()
    monkeypatch.setattr(proxies, "NodeAddresses", interfaces)

    async def main():
        async with Proxy(steering=steering) as proxy:
            web = service("web", "10.96.0.1", node_port=port)
            await proxy.put(web, [endpoints("web", "192.0.2.1")])
            assert node_ports() == {"127.0.0.1"}
            interfaces.become("127.0.0.1", "192.0.2.10")
            while node_ports() != {"127.0.0.1", "192.0.2.10"}:
                await asyncio.wait({asyncio.ensure_future(proxy.settled())})

    def node_ports():
        return {
            ip for ip in interfaces.current if Frontend(ip, port, Protocol.TCP) in steering.kernel
        }

    run(main())
    assert interfaces.is_closed
