"""Tests of Services that an unprivileged program adds by calls, on asyncio and uvloop."""

import asyncio
import contextlib
import socket

import pytest

from tests.descriptors import descriptors_left
from tests.tcp_servers import serving
from userspace_proxy import Options, Proxy
from userspace_proxy.causes.endpoints import fault_on_purpose
from userspace_proxy.causes.notes import kernel_path_unused, range_at_node, range_not_possible
from userspace_proxy.causes.say import say
from userspace_proxy.embedding.arguments import read_endpoint
from userspace_proxy.errors import ListenError
from userspace_proxy.model import IPFamily, Protocol, ServiceKey
from userspace_proxy.plan.detours import At
from userspace_proxy.plane import record_ring
from userspace_proxy.steering.base import NoSteering

from ..agent.backends import answers, ask, backend, free_address
from ..conftest import IN_BOTH_LOOPS
from ..dataplane.waiting import until

pytestmark = IN_BOTH_LOOPS


async def test_each_service_has_its_requested_port():
    async with backend(b"one") as one, Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=[one])
        cart = await proxy.add_service("cart", port=8080, endpoints=[one])
        assert web.address.port == cart.address.port == 8080
        assert web.address.ip != cart.address.ip
        assert web.address.ip.startswith("127.")


async def test_a_service_whose_port_is_in_use_is_served_on_a_free_port():
    with socket.create_server(("127.99.1.1", 8080)):
        async with backend(b"one") as one, Proxy() as proxy:
            web = await proxy.add_service(
                "web", port=8080, endpoints=[one], cluster_ip="127.99.1.1"
            )
            assert web.address.ip == "127.99.1.1"
            assert web.address.port != 8080
            assert await ask(web.address) == b"one"


async def test_each_port_of_a_range_reaches_the_same_port_of_an_endpoint():
    async def send_port(_reader, writer):
        writer.write(b"%d" % writer.get_extra_info("sockname")[1])

    async with contextlib.AsyncExitStack() as stack, Proxy() as proxy:
        for number in (42000, 42001, 42099):
            await stack.enter_async_context(serving(send_port, "127.99.4.1", number))
        web = await proxy.add_service(
            "web", port=8001, endpoints=["127.99.4.1:42001"], port_ranges="8001=8000-8099"
        )
        ip = web.address.ip
        async with proxy.observe(web.key) as seen:
            for port in (8000, 8001, 8099):
                assert await ask((ip, port)) == b"%d" % (port + 34000)
            await until(lambda: len(seen) == 3)
        for port in (7999, 8100):
            with pytest.raises(ConnectionRefusedError):
                await ask((ip, port))
        (port,) = proxy.status().ports
        assert [one.address for one in port.frontends] == [f"{ip}:8000–8099"]
    assert [(one.frontend, one.endpoint) for one in seen] == [
        (f"{ip}:{port}", f"127.99.4.1:{port + 34000}") for port in (8000, 8001, 8099)
    ]


async def test_a_range_with_a_port_in_use_is_an_error_that_names_it():
    async with Proxy() as proxy:
        with socket.create_server(("127.99.1.3", 8085)), pytest.raises(ListenError) as raised:
            await proxy.add_service(
                "web", port=8080, port_ranges="8080=8080-8090", cluster_ip="127.99.1.3"
            )
        assert "127.99.1.3:8085/TCP is held by" in str(raised.value)


async def test_observed_connections_are_returned_as_a_list():
    async with backend(b"one") as one, Proxy() as proxy:
        dead = free_address()
        web = await proxy.add_service("web", port=8080, endpoints=[dead, one])
        cart = await proxy.add_service("cart", port=8080, endpoints=[one])
        async with proxy.observe(web.key) as seen, proxy.observe(saved=True) as saved:
            for service in (web, web, cart):
                assert await ask(service.address) == b"one"
            await until(lambda: len(seen) == 3)
        await ask(web.address)
        assert sorted(str(each.event) for each in seen) == ["ended", "ended", "saved"]
        assert {each.endpoint for each in seen} == {one}
        assert [(str(each.event), each.failed[0].endpoint) for each in saved] == [
            ("saved", dead),
            ("ended", dead),
        ]


async def test_ended_connections_are_listed_after_the_block():
    async with backend(b"one") as one, Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=[one])
        async with proxy.observe("default/web", client="127.0.0.1") as seen:
            assert await ask(web.address) == b"one"
            await until(lambda: not proxy.status().ports[0].endpoints[0].active)
        assert [each.service for each in seen] == [str(web.key)]


async def test_records_dropped_by_workers_are_counted_as_omitted(monkeypatch):
    monkeypatch.setattr(record_ring, "OBSERVED_MAX", 0)
    async with backend(b"one") as one, Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=[one])
        async with proxy.observe(web.key) as seen:
            for _ in range(3):
                assert await ask(web.address) == b"one"
            await until(lambda: not proxy.status().ports[0].endpoints[0].active)
        assert {str(each.event) for each in seen} == {"left-out"}
        assert sum(each.count for each in seen) == 3


async def test_observing_an_unserved_service_or_an_invalid_filter_is_an_error():
    async with Proxy() as proxy:
        with pytest.raises(LookupError, match="there is no Service port of 'default/web'"):
            async with proxy.observe(ServiceKey("default", "web")):
                pass
        with pytest.raises(ValueError, match=r"'10\.0\.0' is not an IP address"):
            async with proxy.observe(client="10.0.0"):
                pass
        with pytest.raises(ValueError, match=r"slow_s: Expected `float` <= "):
            async with proxy.observe(slow_s=1e12):
                pass


async def test_clients_are_refused_until_an_endpoint_is_added_at_the_same_address():
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


async def test_clients_of_a_removed_service_are_refused_and_open_connections_continue():
    async def echo(reader, writer):
        writer.write(await reader.readexactly(4))

    async with serving(echo) as endpoint, Proxy() as proxy:
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


async def test_a_replaced_service_has_only_its_new_endpoints():
    async with backend(b"one") as one, backend(b"two") as two, Proxy() as proxy:
        await proxy.add_service("web", port=8080, endpoints=[one])
        web = await proxy.add_service("web", port=8080, endpoints=[two])
        assert await answers(web.address, 4) == [b"two"] * 4


async def test_a_recreated_service_does_not_keep_its_old_endpoints():
    async with backend(b"one") as one, Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=[one])
        await web.remove()
        web = await proxy.add_service("web", port=8080)
        with pytest.raises(ConnectionRefusedError):
            await ask(web.address)


async def test_an_address_held_by_another_proxy_is_not_shared():
    async with backend(b"one") as one, backend(b"two") as two, Proxy() as p, Proxy() as q:
        first = await p.add_service("web", port=8080, cluster_ip="127.99.1.5")
        second = await q.add_service("web", port=8080, cluster_ip="127.99.1.5", endpoints=[two])
        assert first.address.port == 8080
        assert second.address.port != 8080
        await first.set_endpoints([one])
        assert await ask(first.address) == b"one"
        assert await ask(second.address) == b"two"


async def test_a_replaced_service_keeps_its_address():
    async with backend(b"one") as one, Proxy() as proxy:
        # Read the address now: later, this handle returns the replacement's address.
        before = (await proxy.add_service("web", port=8080)).address
        after = await proxy.add_service("web", port=8080, endpoints=[one])
        assert after.address == before


async def test_concurrently_added_services_have_distinct_addresses():
    async with Proxy() as proxy:
        web = await proxy.add_service("web", port=8080)
        wanted = web.address.ip
        await web.remove()
        cart, web = await asyncio.gather(
            proxy.add_service("cart", port=8080, cluster_ip=wanted),
            proxy.add_service("web", port=8080),
        )
        assert cart.address == (wanted, 8080)
        assert web.address.port == 8080
        assert web.address.ip != wanted


async def test_unservable_endpoints_raise_the_problem_shown_in_the_status():
    async with Proxy() as proxy:
        dns = await proxy.add_service("dns", port=5353, protocol="UDP")
        with descriptors_left(0):
            with pytest.raises(ListenError) as caught:
                await dns.set_endpoints(["127.0.0.1:53"])
            (port,) = proxy.status().ports
            assert (caught.value.message, caught.value.hint) == (port.problem, port.hint)
            assert caught.value.hint.startswith("this process is out of descriptors")
        await dns.set_endpoints(["127.0.0.1:54"])
        assert proxy.status().ports[0].problem == ""


async def test_a_service_whose_replacement_fails_is_still_served():
    options = Options(proxy_ports=(29990, 29990))
    taken = ("127.99.1.6", 8080), ("127.99.1.6", 29990)
    with socket.create_server(taken[0]), socket.create_server(taken[1]):
        async with backend(b"one") as one, Proxy(options=options) as proxy:
            web = await proxy.add_service("web", port=8080, endpoints=[one])
            with pytest.raises(ListenError):
                await proxy.add_service("web", port=8080, cluster_ip="127.99.1.6")
            assert await ask(web.address) == b"one"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"port": 0}, "port: 0 is not in 1–65535", id="port-zero"),
        pytest.param({"port": 80, "cluster_ip": "x"}, "'x' is not an IP address", id="cluster-ip"),
        pytest.param(
            {"port": 80, "path": "kernel"},
            "this steering has no kernel path: it needs --steering=nftables",
            id="path",
        ),
        pytest.param(
            {"port": 80, "path": "kernel", "hold": "60s"},
            say(kernel_path_unused("hold needs the proxy")),
            id="path-and-hold",
        ),
        pytest.param(
            {"port": 80, "port_ranges": "80=80-180"},
            say(range_not_possible("80=80-180", NoSteering.no_kernel_path[Protocol.TCP])),
            id="long-range",
        ),
        pytest.param(
            {"port": 80, "port_ranges": "80=80-90", "protocol": "UDP"},
            say(range_not_possible("80=80-90", NoSteering.no_kernel_path[IPFamily.IPV4])),
            id="range-of-udp",
        ),
        pytest.param(
            {"port": 80, "port_ranges": "80=80-90", "cluster_ip": "10.96.0.1"},
            "10.96.0.1 is no loopback address",
            id="range-at-no-loopback-address",
        ),
        pytest.param(
            {"port": 80, "port_ranges": "80=80-90", "cluster_ip": "127.0.0.1"},
            say(range_at_node("80=80-90", "127.0.0.1", "this node")),
            id="range-at-the-node",
        ),
    ],
)
async def test_an_error_names_the_invalid_argument(arguments, words):
    async with Proxy() as proxy:
        with pytest.raises(ValueError, match=words):
            await proxy.add_service("web", **arguments)
        assert proxy.status().ports == ()


async def test_an_address_without_a_free_port_is_an_error_without_leftovers():
    options = Options(proxy_ports=(29990, 29990))
    with (
        socket.create_server(("127.99.1.2", 8080)),
        socket.create_server(("127.99.1.2", 29990)),
    ):
        async with Proxy(options=options) as proxy:
            with pytest.raises(ListenError):
                await proxy.add_service("web", port=8080, cluster_ip="127.99.1.2")
            assert proxy.status().ports == ()


async def test_a_detoured_endpoint_is_shown_with_the_reason():
    async with backend(b"one") as one, backend(b"two") as two, Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=[one])
        with pytest.raises(LookupError, match="there is no Service default/other"):
            proxy.endpoints_of(ServiceKey("default", "other"))
        (endpoint,) = proxy.endpoints_of(web.key)
        assert endpoint == At(Protocol.TCP, read_endpoint(one))
        why = {endpoint: ["a canary"]}
        proxy.detour(web.key, {endpoint: read_endpoint(two)}, lambda: why)
        assert await ask(web.address) == b"two"
        (shown,) = proxy.status().ports[0].endpoints
        assert (shown.address, shown.cause) == (one, fault_on_purpose(one, ("a canary",)))
        proxy.detour(web.key, {})
        assert await ask(web.address) == b"one"
        assert proxy.status().ports[0].endpoints[0].cause is None


@pytest.mark.parametrize(
    ("at", "to", "error"),
    [
        pytest.param(("TCP", "127.0.0.1:1"), "127.0.0.1:0", ValueError, id="port"),
        pytest.param(("TCP", "web:1"), "127.0.0.1:1", ValueError, id="name"),
        pytest.param(("ICMP", "127.0.0.1:1"), "127.0.0.1:1", ValueError, id="protocol"),
        pytest.param(("TCP", "127.0.0.1:1"), None, TypeError, id="none"),
    ],
)
async def test_an_invalid_detour_is_an_error_and_changes_nothing(at, to, error):
    async with backend(b"one") as one, Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=[one])
        with pytest.raises(error):
            proxy.detour(web.key, {at: to})
        await web.set_endpoints([one])
        assert await ask(web.address) == b"one"


@pytest.mark.parametrize("port", [8080, 8081], ids=["equal", "other-port"])
async def test_the_handle_of_a_replaced_service_cannot_change_the_new_service(port):
    async with backend(b"one") as one, Proxy() as proxy:
        before = await proxy.add_service("web", port=8080)
        after = await proxy.add_service("web", port=port, endpoints=[one])
        with pytest.raises(LookupError, match="default/web was removed or replaced"):
            await before.set_endpoints(["127.0.0.1:1"])
        with pytest.raises(LookupError, match="default/web was removed or replaced"):
            await before.put([])
        await before.remove()
        assert await ask(after.address) == b"one"
        assert after.address.port == port


async def test_a_handle_does_not_revive_a_removed_service():
    async with Proxy() as proxy:
        web = await proxy.add_service("web", port=8080)
        await web.remove()
        with pytest.raises(LookupError, match="default/web was removed"):
            await web.set_endpoints(["127.0.0.1:1"])
        assert proxy.status().ports == ()


async def test_endpoints_of_a_service_without_its_address_raise_the_problem_in_the_status():
    async with Proxy() as proxy:
        web = await proxy.add_service("web", port=8080, cluster_ip="127.99.1.7")
        await proxy.add_service("api", port=8080, cluster_ip="127.99.1.7")
        with pytest.raises(ListenError) as caught:
            await web.set_endpoints(["127.0.0.1:1"])
        (ignored,) = proxy.status().ignored
        assert str(caught.value) == f"cannot serve default/web: {say(ignored.cause)}"


async def test_a_handle_shows_its_services_address_and_number_of_endpoints():
    async with backend(b"one") as one, Proxy() as proxy:
        await proxy.add_service("api", port=8080)
        web = await proxy.add_service("web", port=8080, endpoints=[one, free_address()])
        assert repr(web) == f"<Service default/web at {web.address}, 2 endpoints>"
        await answers(web.address, 2)
        assert repr(web) == f"<Service default/web at {web.address}, 2 endpoints, 1 ejected>"
        await web.set_endpoints([one])
        assert repr(web) == f"<Service default/web at {web.address}, 1 endpoint>"
        await web.remove()
        assert repr(web) == "<Service default/web, not served>"


async def test_standbys_and_weights_of_an_embedded_service_take_effect():
    async with backend(b"one") as one, backend(b"two") as two, Proxy() as proxy:
        db = await proxy.add_service("db", port=5432, endpoints=[one], standby=[two])
        assert [await ask(db.address) for _ in range(4)] == [b"one"] * 4
        await db.set_endpoints(["127.0.0.1:1"], standby=[two])
        assert [await ask(db.address) for _ in range(4)] == [b"two"] * 4
        await db.set_endpoints({one: 0, two: 5})
        assert [await ask(db.address) for _ in range(4)] == [b"two"] * 4
        await db.set_endpoints({one: 3, two: 1})
        answers = [await ask(db.address) for _ in range(8)]
        assert (answers.count(b"one"), answers.count(b"two")) == (6, 2)
