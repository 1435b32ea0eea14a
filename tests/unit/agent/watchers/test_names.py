"""Names of Services: in this process, by aiohttp and by DNS, without privileges."""

import asyncio
import socket

import aiohttp
import aiohttp.web
import dns.asyncquery
import dns.message
import dns.rrset
import pytest

from userspace_proxy import Options, Proxy
from userspace_proxy.agent.rounds.served_ports import ServedPorts
from userspace_proxy.errors import ListenError

from ...lookup.servers import serving
from ..backends import backend

DNS = Options(dns=("127.0.0.1", 0))


async def ask(address, name, type_):
    query = dns.message.make_query(name, type_)
    answer = await dns.asyncquery.udp(query, address.ip, port=address.port, timeout=60)
    return [rdata.to_text() for rrset in answer.answer for rdata in rrset]


async def first_byte(host, port):
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return await reader.read(3)
    finally:
        writer.close()


async def test_a_connection_by_name_reaches_the_service():
    async with backend(b"one") as one, Proxy() as proxy:
        await proxy.add_service("web", port=8080, endpoints=[one], namespace="shop")
        with proxy.names("shop"):
            for host in ("web", "web.shop", "web.shop.svc.cluster.local"):
                assert await first_byte(host, 8080) == b"one"


async def test_a_service_with_another_proxy_port_is_reached_at_its_own_port():
    async with backend(b"one") as one, Proxy() as proxy:
        with socket.create_server(("127.99.1.2", 80)):
            await proxy.add_service("web", port=80, endpoints=[one], cluster_ip="127.99.1.2")
        with proxy.names():
            assert await first_byte("web", 80) == b"one"


async def test_a_cluster_ip_missing_from_all_interfaces_is_reached_by_name():
    async with backend(b"one") as one, Proxy(options=DNS) as proxy:
        web = await proxy.add_service("web", port=80, endpoints=[one], cluster_ip="10.96.0.10")
        with proxy.names():
            assert await first_byte("web", 80) == b"one"
        answer = await ask(proxy.dns_address, "web.default.svc.cluster.local", "A")
        assert answer == [web.address.ip] == ["127.0.0.1"]


async def test_a_name_lookup_does_not_iterate_over_other_services(monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        ServedPorts,
        "__iter__",
        lambda ports: looked_at.append(ports) or iter(ports._served.values()),
    )
    async with backend(b"one") as one, Proxy(options=DNS) as proxy:
        web = await proxy.add_service("web", port=80, endpoints=[one], cluster_ip="10.96.0.10")
        port = web.address.port
        looked_at.clear()
        answer = await ask(proxy.dns_address, "web.default.svc.cluster.local", "SRV")
        assert answer == [f"0 100 {port} web.default.svc.cluster.local."]
        with proxy.names():
            assert await first_byte("web", 80) == b"one"
        assert looked_at == []


async def test_queries_by_udp_for_names_outside_the_cluster_are_forwarded():
    def respond(wire, *, is_udp):
        answer = dns.message.make_response(query := dns.message.from_wire(wire))
        name = query.question[0].name
        answer.answer = [dns.rrset.from_text(name, 60, "IN", "A", "203.0.113.1")]
        return answer.to_wire()

    async with serving(respond) as upstream:
        options = Options(dns=("127.0.0.1", 0), dns_upstream=upstream)
        async with Proxy(options=options) as proxy:
            assert await ask(proxy.dns_address, "www.example", "A") == ["203.0.113.1"]


async def test_the_name_of_an_added_service_resolves_to_its_address():
    async with backend(b"one") as one, Proxy() as proxy:
        await proxy.add_service("cart", port=8080)
        with proxy.names():
            with pytest.raises(socket.gaierror):
                socket.getaddrinfo("web.default.svc.cluster.local", 80)
            web = await proxy.add_service("web", port=8080, endpoints=[one])
            found = socket.getaddrinfo("web", 8080, type=socket.SOCK_STREAM)
            assert found[0][4] == tuple(web.address)


async def test_aiohttp_resolves_service_names(aiohttp_backend):
    async with Proxy() as proxy:
        await proxy.add_service("web", port=8080, endpoints=[aiohttp_backend])
        connector = aiohttp.TCPConnector(resolver=proxy.resolver())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://web:8080/") as response,
        ):
            assert await response.text() == "web:8080"


@pytest.fixture
async def aiohttp_backend():
    """The address of an HTTP server that responds with the requested host."""

    async def handle(request):
        return aiohttp.web.Response(text=request.host)

    app = aiohttp.web.Application()
    app.router.add_get("/", handle)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield "{}:{}".format(*runner.addresses[0])
    await runner.cleanup()


async def test_a_dns_address_in_use_aborts_startup():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        proxy = Proxy(options=Options(dns=taken.getsockname()))
        with pytest.raises(ListenError, match="cannot serve DNS on"):
            await proxy.start()


async def test_a_search_namespace_must_be_a_valid_name():
    async with Proxy() as proxy:
        with pytest.raises(ValueError, match=r"^namespace: 'Shop' is "):
            proxy.names("Shop")


async def test_the_method_names_requires_a_running_proxy():
    with pytest.raises(RuntimeError, match="isn't running"):
        Proxy().names()
