"""Tests of look-ups at a real DNS server on loopback."""

import asyncio

import dns.rcode
import pytest

from tests.dns_zone import Zone
from userspace_proxy.lookup import node_resolver
from userspace_proxy.lookup.node_resolver import NodeResolver
from userspace_proxy.model import IPFamily
from userspace_proxy.model.endpoint_names import Lookup

from .servers import serving

V4, V6 = IPFamily.IPV4, IPFamily.IPV6
DB = "db.example.com"


class Server:
    """A zone, its server, and the resolver of a node whose resolv.conf lists the server."""

    def __init__(self, folder, port, zone):
        self.zone = zone
        self.resolv_conf = folder / "resolv.conf"
        self.resolv_conf.write_text("nameserver 127.0.0.1\nsearch example.org\n")
        self.resolver = NodeResolver(self.resolv_conf, port)

    async def look_up(self, *families, host=DB):
        async with asyncio.timeout(60):
            return await self.resolver.look_up(host, families or (V4,))


@pytest.fixture
async def server(tmp_path):
    zone = Zone()
    async with serving(zone.respond) as address:
        yield Server(tmp_path, address.port, zone)


async def test_addresses_of_both_families_are_looked_up(server):
    server.zone.records = {
        f"{DB} A": [30, "203.0.113.2", "203.0.113.1"],
        f"{DB} AAAA": [20, "2001:DB8::1"],
    }
    assert await server.look_up(V4, V6) == Lookup(
        {V4: ("203.0.113.1", "203.0.113.2"), V6: ("2001:db8::1",)}, 20
    )


async def test_only_the_requested_family_is_queried_and_the_name_is_absolute(server):
    server.zone.records = {f"{DB} A": [30, "203.0.113.1"]}
    await server.look_up()
    assert server.zone.asked == [f"{DB} A udp"]


async def test_a_nonexistent_name_yields_no_addresses_but_a_reason(server):
    found = await server.look_up()
    assert (found.addresses, found.ttl_s) == ({V4: ()}, 0.0)
    assert found.why.endswith("no such name")


async def test_a_name_without_an_address_of_the_family_yields_a_reason(server):
    server.zone.records = {f"{DB} AAAA": [30, "2001:db8::1"]}
    assert await server.look_up() == Lookup({V4: ()}, why="DNS has no IPv4 address")


async def test_a_name_that_a_server_denies_for_only_one_family_has_no_address(server):
    def respond(wire, *, is_udp):
        server.zone.records = {f"{DB} TXT": [30]} if b"\0\x1c\0\1" in wire else {}
        return server.zone.respond(wire, is_udp=is_udp)

    async with serving(respond) as address:
        found = await NodeResolver(server.resolv_conf, address.port).look_up(DB, (V4, V6))
    assert found.why == "DNS has no IPv4 or IPv6 address"


async def test_a_family_without_an_address_does_not_fail_the_other_family(server):
    server.zone.records = {f"{DB} AAAA": [30, "2001:db8::1"]}
    assert await server.look_up(V4, V6) == Lookup({V4: (), V6: ("2001:db8::1",)}, 30)


async def test_a_name_too_long_for_dns_is_not_queried(server):
    lookup = await server.look_up(host=f"{'a' * 64}.example.com")
    assert lookup.why.endswith(": a label has more than 63 bytes")
    assert server.zone.asked == []


async def test_a_failed_lookup_names_the_dns_server_and_its_response_code(server):
    server.zone.code = dns.rcode.SERVFAIL
    assert await server.look_up() == Lookup({}, why="server 127.0.0.1 answers SERVFAIL")
    assert len(server.zone.asked) == 2


async def test_after_a_failure_the_next_server_is_queried(server):
    server.resolv_conf.write_text("nameserver ::1\nnameserver 127.0.0.1\n")
    server.zone.records = {f"{DB} A": [30, "203.0.113.1"]}
    assert (await server.look_up()).addresses == {V4: ("203.0.113.1",)}


async def test_a_lookup_at_a_silent_server_fails(server, monkeypatch):
    monkeypatch.setattr(node_resolver, "_TRY_S", 0.05)
    server.zone.is_silent = True
    assert await server.look_up() == Lookup({}, why="server 127.0.0.1 does not answer")


async def test_a_lookup_times_out(server, monkeypatch):
    monkeypatch.setattr(node_resolver, "LOOKUP_S", 0.05)
    server.zone.is_silent = True
    assert await server.look_up() == Lookup({}, why="no server answers")


async def test_an_ipv4_mapped_address_is_returned_in_ipv6_form(server):
    server.zone.records = {f"{DB} AAAA": [30, "::ffff:127.0.0.1"]}
    (ip,) = (await server.look_up(V6)).addresses[V6]
    assert ip.startswith("::ffff:")


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        pytest.param(
            "# comment\nsearch a b\nnameserver 192.0.2.1\nnameserver\nnameserver 2001:db8::1\n",
            ("192.0.2.1", "2001:db8::1"),
            id="two",
        ),
        pytest.param("nameserver fe80::1%eth0\nnameserver x\n", ("127.0.0.1",), id="none-valid"),
        pytest.param("", ("127.0.0.1",), id="empty"),
        pytest.param(
            "".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 6)),
            ("192.0.2.1", "192.0.2.2", "192.0.2.3"),
            id="more-than-glibc-asks",
        ),
    ],
)
def test_name_servers_are_read_from_resolv_conf(tmp_path, text, servers):
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    assert NodeResolver(path)._servers() == servers


def test_without_resolv_conf_the_local_server_is_queried(tmp_path):
    assert NodeResolver(tmp_path / "none")._servers() == ("127.0.0.1",)
