import asyncio
import re
from dataclasses import replace

import pytest

from tests.dns_zone import Zone
from userspace_proxy import Options, Proxy
from userspace_proxy.causes.names import name_leads_astray
from userspace_proxy.embedding.named_endpoints import make_all_slices
from userspace_proxy.lookup.dns_server import DnsServer
from userspace_proxy.lookup.node_resolver import NodeResolver
from userspace_proxy.model import (
    Endpoint,
    Service,
    ServiceKey,
    ServicePort,
    SlicePort,
    SocketAddress,
)
from userspace_proxy.model.endpoint_names import NAMES_MAX, NameSlice
from userspace_proxy.model.reserved_addresses import reserved_reason

from ..agent.watched import until

DB = Service(ServiceKey("shop", "db"), (ServicePort("", 5432, "TCP"),), cluster_ips=("127.99.0.1",))
ALLOWED = ("example.com",)


def named(endpoints, standby=(), allowed=ALLOWED):
    slices = make_all_slices(DB, endpoints, standby, allowed)
    return [item for item in slices if isinstance(item, NameSlice)]


def test_endpoints_by_name_and_by_address_can_be_mixed():
    plain, names = make_all_slices(DB, ["192.0.2.1:80", ("DB.example.com.", 5432)], (), ALLOWED)
    assert plain.endpoints == (Endpoint("192.0.2.1"),)
    assert names.named == (Endpoint("db.example.com"),)
    assert names.ports == (SlicePort("", 5432, "TCP"),)
    assert names.endpoints == ()


def test_endpoint_names_are_accepted_for_a_service_with_an_ipv6_address():
    service = replace(DB, cluster_ips=("fd00:99::1",))
    (names,) = make_all_slices(service, ["db.example.com:5432"], (), ALLOWED)
    assert names.named == (Endpoint("db.example.com"),)


def test_endpoint_names_keep_their_weights_and_priorities():
    (item,) = named({"a.example.com:1": 7, "b.example.com:1": 0}, ["c.example.com:1"])
    assert item.named == (
        Endpoint("a.example.com", weight=7),
        Endpoint("b.example.com", weight=0),
        Endpoint("c.example.com", priority=1),
    )


def test_each_port_of_named_endpoints_has_its_own_slice():
    slices = named(["a.example.com:1", "a.example.com:2"])
    assert [(item.key.name, item.ports[0].port) for item in slices] == [
        ("db-names-1", 1),
        ("db-names-2", 2),
    ]


@pytest.mark.parametrize(
    ("endpoints", "allowed", "words"),
    [
        pytest.param(
            ["db.example.com:1"],
            (),
            "endpoint 'db.example.com:1': this proxy looks up no names: "
            "pass Options(allow_endpoint_names=('example.com',))",
            id="off",
        ),
        pytest.param(
            ["example.org:1"],
            ALLOWED,
            "endpoint 'example.org:1': this proxy looks up only names below example.com: "
            "pass Options(allow_endpoint_names=('example.com', 'example.org'))",
            id="another-suffix",
        ),
        pytest.param(
            ["db.example.com"],
            ALLOWED,
            "endpoint 'db.example.com': it has no port: write db.example.com:PORT",
            id="no-port",
        ),
        pytest.param(
            [("db.example.com", 0)],
            ALLOWED,
            "endpoint ('db.example.com', 0): expected a port in 1–65535, got 0",
            id="port-zero",
        ),
        pytest.param(
            ["db.example.com:http"], ALLOWED, "expected a port in 1–65535, got http", id="port-name"
        ),
        pytest.param(
            ["-db.example.com:1"],
            ALLOWED,
            "endpoint '-db.example.com:1': '-db.example.com' is not a",
            id="bad-name",
        ),
        pytest.param(["db:1"], ALLOWED, "expected an IP address, not a name", id="short"),
        pytest.param(["localhost:1"], ALLOWED, "write 127.0.0.1:1", id="localhost"),
        pytest.param(
            ["http://db.example.com:1"],
            ALLOWED,
            "endpoint 'http://db.example.com:1': expected no scheme and no path: "
            "write db.example.com:1",
            id="url",
        ),
        pytest.param({"db.example.com:1": -1}, ALLOWED, "weight: -1 is not in", id="weight"),
        pytest.param(
            [f"db{n}.example.com:1" for n in range(NAMES_MAX + 1)],
            ALLOWED,
            f"may have {NAMES_MAX} names",
            id="too-many",
        ),
    ],
)
def test_an_invalid_endpoint_name_is_an_error(endpoints, allowed, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        named(endpoints, allowed=allowed)


def test_a_name_cannot_be_in_both_endpoints_and_standby():
    words = "endpoint 'a.example.com:1': expected in endpoints or standby, not both"
    with pytest.raises(ValueError, match=re.escape(words)):
        named(["a.example.com:1"], ["a.example.com:1"])


@pytest.mark.parametrize("endpoints", ["db.example.com:1", None, 7, [7]])
def test_endpoints_that_are_not_a_list_are_rejected(endpoints):
    with pytest.raises(TypeError, match="expected"):
        named(endpoints)


async def test_endpoint_names_are_disabled_by_default():
    async with Proxy() as proxy:
        with pytest.raises(ValueError, match="this proxy looks up no names: pass Options"):
            await proxy.add_service("db", port=5432, endpoints=["db.example.com:5432"])


async def test_a_name_resolving_to_this_machine_is_not_dialled(tmp_path, monkeypatch):
    zone = Zone()
    zone.records = {"db.example.com A": [5, "127.0.0.5"]}
    server = DnsServer(zone.respond)
    address = await server.open(SocketAddress("127.0.0.1", 0))
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    monkeypatch.setattr(NodeResolver.__init__, "__defaults__", (resolv_conf, address.port))
    async with Proxy(options=Options(allow_endpoint_names=ALLOWED)) as proxy:
        db = await proxy.add_service("db", port=5432, endpoints=["db.example.com:5432"])
        await until(lambda: proxy.status().ports[0].cause.code == "endpoint-not-allowed")
        (port,) = proxy.status().ports
        where = f"127.0.0.5, which is {reserved_reason('127.0.0.5')}"
        assert port.cause == name_leads_astray("db.example.com", where)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*db.address)
    await server.close()
