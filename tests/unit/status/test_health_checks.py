"""Tests of health check node ports over real HTTP."""

import asyncio
import contextlib
import functools
import json
import socket

import aiohttp
import pytest

from userspace_proxy.model import ServiceKey
from userspace_proxy.plan import HealthCheck
from userspace_proxy.status.health_checks import (
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_PORT,
    HealthCheckPorts,
)

from ..port_numbers import free_port

WEB = ServiceKey("shop", "web")
CART = ServiceKey("shop", "cart")
HERE = ("127.0.0.1",)


def free_ports(count=1):
    return [free_port() for _ in range(count)]


@pytest.fixture
def health():
    """Return the health of the proxy, which a test can change."""
    return {"is_healthy": True}


@pytest.fixture
async def ports(health):
    ports = HealthCheckPorts(lambda: health["is_healthy"])
    yield ports
    await ports.close()


@pytest.fixture
async def ask():
    async with aiohttp.ClientSession() as session:

        async def ask(port, path="/", *, method="GET", ip="127.0.0.1"):
            async with session.request(method, f"http://{ip}:{port}{path}") as response:
                return response, await response.text()

        yield ask


async def test_a_health_check_response_has_kube_proxys_fields_and_headers(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 3)], HERE)
    response, text = await ask(port)
    assert response.status == 200
    assert json.loads(text) == {
        "service": {"namespace": "shop", "name": "web"},
        "localEndpoints": 3,
        "serviceProxyHealthy": True,
    }
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Load-Balancing-Endpoint-Weight"] == "3"
    assert ports.problems == {}


@pytest.mark.parametrize(
    ("local_endpoints", "is_healthy", "status"),
    [
        pytest.param(1, True, 200, id="served-here"),
        pytest.param(0, True, 503, id="no-endpoint-here"),
        pytest.param(1, False, 503, id="proxy-is-late"),
        pytest.param(0, False, 503, id="neither"),
    ],
)
async def test_the_health_check_status_depends_on_local_endpoints_and_the_proxy(
    ports, ask, health, local_endpoints, is_healthy, status
):
    (port,) = free_ports()
    health["is_healthy"] = is_healthy
    await ports.apply([HealthCheck(WEB, port, local_endpoints)], HERE)
    response, text = await ask(port)
    assert response.status == status
    assert json.loads(text)["serviceProxyHealthy"] is is_healthy
    assert response.headers["X-Load-Balancing-Endpoint-Weight"] == str(local_endpoints)


@pytest.mark.parametrize("path", ["/", "/healthz", "/a/b?c=d", "//"])
async def test_a_health_check_port_answers_any_path(ports, ask, path):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    assert (await ask(port, path))[0].status == 200


async def test_a_health_check_port_answers_any_method_and_head_without_a_body(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    assert (await ask(port, method="POST"))[0].status == 200
    response, text = await ask(port, method="HEAD")
    assert (response.status, text) == (200, "")


async def test_a_changed_endpoint_count_is_reported_immediately(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 2)], HERE)
    await ports.apply([HealthCheck(WEB, port, 0)], HERE)
    response, text = await ask(port)
    assert (response.status, json.loads(text)["localEndpoints"]) == (503, 0)


async def test_a_client_waiting_at_a_port_that_moves_to_another_service_is_answered(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    waiting = socket.create_connection(("127.0.0.1", port))
    await ports.apply([HealthCheck(CART, port, 4)], HERE)
    waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = await asyncio.to_thread(waiting.makefile("rb").read)
    waiting.close()
    assert b'"name": "cart"' in answer


async def test_health_checks_of_a_removed_service_are_refused(ports, ask):
    one, two = free_ports(2)
    await ports.apply([HealthCheck(WEB, one, 1), HealthCheck(CART, two, 1)], HERE)
    await ports.apply([HealthCheck(CART, two, 1)], HERE)
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(one)
    assert (await ask(two))[0].status == 200
    assert ports._limits.keys() == {two}


async def test_a_client_that_connected_before_the_services_removal_gets_404(ports):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await ports.apply((), HERE)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"404" in await reader.readline()
    writer.close()


async def test_a_health_check_port_in_use_is_reported_until_it_is_free(ports, ask):
    (free,) = free_ports()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        await ports.apply([HealthCheck(WEB, port, 1), HealthCheck(CART, free, 1)], HERE)
        assert ports.problems.keys() == {WEB}
        assert ports.problems[WEB].endswith(f" on 127.0.0.1:{port}: Address already in use")
        assert (await ask(free))[0].status == 200
    await ports.apply([HealthCheck(WEB, port, 1), HealthCheck(CART, free, 1)], HERE)
    assert ports.problems == {}
    assert (await ask(port))[0].status == 200


async def test_a_health_checks_first_address_in_use_is_reported_and_a_change_logged(ports, caplog):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("127.0.0.2", taken.getsockname()[1])),
    ):
        check = HealthCheck(WEB, taken.getsockname()[1], 1)
        for addresses in (["127.0.0.1", "127.0.0.2"], ["127.0.0.2"]):
            await ports.apply([check], addresses)
            assert f" on {addresses[0]}:" in ports.problems[WEB]
    assert len(caplog.messages) == 2


async def test_a_health_check_port_in_use_is_reported_with_its_holder():
    asked = []

    def who_holds(ip, port):
        asked.append(port)
        return f"nginx at {ip}:{port}"

    ports = HealthCheckPorts(lambda: True, who_holds=who_holds)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for _ in range(3):
            await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    assert ports.problems[WEB].endswith(f"Address already in use by nginx at 127.0.0.1:{port}")
    assert asked == [port], "the holder was looked up again"
    await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    assert ports.problems == {}
    await ports.apply((), HERE)
    with socket.create_server(("127.0.0.1", port)):
        await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    assert asked == [port, port], "the holder wasn't looked up anew"
    await ports.close()


async def test_an_unavailable_health_check_port_is_logged_only_once(ports, caplog):
    caplog.set_level("INFO")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        await ports.apply([HealthCheck(WEB, port, 1)], HERE)
        await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    unserved, served = [record.message for record in caplog.records]
    assert unserved.startswith(f"{WEB}: ")
    assert unserved.endswith(f":{port}: Address already in use")
    assert served == f"{WEB}: health checks are served now"


async def test_a_removed_service_is_not_logged_as_serving_its_health_check(ports, caplog):
    caplog.set_level("INFO")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        await ports.apply([HealthCheck(WEB, taken.getsockname()[1], 1)], HERE)
    caplog.clear()
    await ports.apply([], HERE)
    assert caplog.messages == []


async def test_log_lines_about_a_constantly_changing_service_are_limited(ports, caplog):
    caplog.set_level("INFO")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        check = HealthCheck(WEB, taken.getsockname()[1], 1)
        for _ in range(30):
            await ports.apply([check], HERE)
            await ports.apply([], HERE)
    assert len(caplog.records) == 20


async def test_the_current_owner_keeps_a_contested_health_check_port(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    await ports.apply([HealthCheck(WEB, port, 1), HealthCheck(CART, port, 1)], HERE)
    assert ports.problems.keys() == {CART}
    assert ports.problems[CART].endswith(f" on port {port}: the port is already used by shop/web")
    assert json.loads((await ask(port))[1])["service"]["name"] == "web"
    await ports.apply([HealthCheck(CART, port, 1)], HERE)
    assert ports.problems == {}
    assert json.loads((await ask(port))[1])["service"]["name"] == "cart"


async def test_health_checks_listen_on_both_families_without_node_port_addresses(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)])
    assert (await ask(port))[0].status == 200
    assert (await ask(port, ip="[::1]"))[0].status == 200


async def test_health_check_listeners_follow_the_node_port_addresses(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], ("127.0.0.2",))
    assert (await ask(port, ip="127.0.0.2"))[0].status == 200
    await ports.apply([HealthCheck(WEB, port, 1)], ("127.0.0.3",))
    assert (await ask(port, ip="127.0.0.3"))[0].status == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(port, ip="127.0.0.2")


async def test_a_node_port_address_missing_on_the_node_does_not_affect_other_addresses(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], ("192.0.2.1", "127.0.0.1"))
    assert list(ports.problems) == [WEB]
    assert f"192.0.2.1:{port}" in ports.problems[WEB]
    assert (await ask(port))[0].status == 200


async def test_a_missing_node_port_address_is_reported(ports):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], ())
    assert "--nodeport-addresses" in ports.problems[WEB]


async def test_three_hundred_health_check_ports_are_served(ports, ask):
    numbers = free_ports(300)
    await ports.apply([HealthCheck(ServiceKey("shop", f"s{n}"), n, 1) for n in numbers], HERE)
    assert ports.problems == {}
    for number in (numbers[0], numbers[-1]):
        assert json.loads((await ask(number))[1])["service"]["name"] == f"s{number}"
    await ports.apply((), HERE)


async def test_close_is_idempotent_and_closes_all_listeners(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], HERE)
    await ports.close()
    await ports.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(port)


async def test_floods_on_many_health_check_ports_spare_the_connections_of_another_port(ports, ask):
    """Together, the floods exceed the limit that all health checks share."""
    quiet, last, *flooded = free_ports(MAX_CONNECTIONS // MAX_CONNECTIONS_PER_PORT + 2)
    checks = [HealthCheck(ServiceKey("shop", f"web-{n}"), n, 1) for n in (last, *flooded)]
    await ports.apply([HealthCheck(CART, quiet, 1), *checks], HERE)
    with contextlib.ExitStack() as stack:

        async def flood(port):
            for _ in range(MAX_CONNECTIONS_PER_PORT):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            assert (await ask(port))[0].status == 200

        for port in flooded:
            await flood(port)
        # The client connects last, because the server expects its first request within 2 s.
        waiting = stack.enter_context(socket.create_connection(("127.0.0.1", quiet)))
        await flood(last)
        waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = await asyncio.to_thread(waiting.makefile("rb").read)
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))


async def test_all_addresses_of_a_health_check_port_share_a_connection_limit(ports, ask):
    (port,) = free_ports()
    await ports.apply([HealthCheck(WEB, port, 1)], ["127.0.0.1", "127.0.0.2"])
    elsewhere = ("127.0.0.3", 0)
    with contextlib.ExitStack() as stack:
        connect = functools.partial(socket.create_connection, source_address=elsewhere)
        oldest = stack.enter_context(connect(("127.0.0.1", port)))
        # A response to a later connection proves that the oldest one was accepted.
        assert (await ask(port))[0].status == 200
        for _ in range(MAX_CONNECTIONS_PER_PORT):
            stack.enter_context(connect(("127.0.0.2", port)))
        oldest.settimeout(1.0)
        assert await asyncio.to_thread(oldest.recv, 1) == b""
