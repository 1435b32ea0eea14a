"""The output of `--print-addresses` for Services that a test adds."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

from userspace_proxy import Options, Proxy
from userspace_proxy.agent.watchers.printed_addresses import (
    address_lines,
    changed_lines,
    dialled_address,
)
from userspace_proxy.model import (
    EndpointSlice,
    Frontend,
    FrontendKind,
    IPFamily,
    Protocol,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
)
from userspace_proxy.steering import Bind

from ..samples import Cluster
from ..watched import until

POD = "192.0.2.1"
DOCS = Path(__file__).parents[4] / "docs"


class Reader:
    """Reads the printed lines until it stalls or exits."""

    def __init__(self):
        self.lines = []
        self.texts = 0
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.is_gone = False

    async def write(self, text):
        if self.is_gone:
            raise BrokenPipeError(32, "Broken pipe")
        self.texts += 1
        await self.may_go_on.wait()
        self.lines += [json.loads(line) for line in text.splitlines()]

    async def until(self, count):
        await until(lambda: len(self.lines) >= count)
        return self.lines


def printing(reader):
    return Proxy(options=Options(write_addresses=reader.write))


async def test_each_service_port_and_each_change_is_printed_as_a_line():
    reader = Reader()
    async with printing(reader) as proxy:
        web = await proxy.add_service(
            "web", port=8080, namespace="shop", endpoints=["127.0.0.1:81", "127.0.0.1:82"]
        )
        facts = {"namespace": "shop", "service": "web", "port": "", "protocol": "TCP"}
        first = {**facts, "family": "IPv4", "address": str(web.address), "endpoints": 2}
        assert await reader.until(1) == [first]
        await web.set_endpoints([])
        assert await reader.until(2) == [first, {**first, "endpoints": 0}]
        await web.remove()
        assert (await reader.until(3))[2] == {**first, "endpoints": 0, "address": None}


async def test_a_change_without_a_new_address_prints_nothing():
    reader = Reader()
    async with printing(reader) as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:81"])
        await reader.until(1)
        await web.set_endpoints(["127.0.0.1:82"])
        await proxy.add_service("cart", port=8080)
        assert [line["service"] for line in await reader.until(2)] == ["web", "cart"]


async def test_a_stalled_reader_receives_the_latest_state_when_it_resumes():
    reader = Reader()
    async with printing(reader) as proxy:
        await proxy.add_service("web", port=8080)
        await reader.until(1)
        reader.may_go_on.clear()
        cart = await proxy.add_service("cart", port=8080)
        await until(lambda: reader.texts == 2)
        for number in range(1, 6):
            await cart.set_endpoints([f"127.0.0.1:{port}" for port in range(1, number + 1)])
        assert len(reader.lines) == 1
        reader.may_go_on.set()
        lines = await reader.until(3)
        assert [line["endpoints"] for line in lines] == [0, 0, 5]


async def test_a_disconnected_reader_ends_only_the_printing(caplog):
    reader = Reader()
    async with printing(reader) as proxy:
        reader.is_gone = True
        await proxy.add_service("web", port=8080)
        await until(lambda: "stopped printing addresses: Broken pipe" in caplog.text)
        assert (await proxy.add_service("cart", port=8080)).address.port == 8080


async def test_both_families_and_each_named_port_have_separate_lines():
    reader = Reader()
    key = ServiceKey("shop", "web")
    ports = (ServicePort("http", 8080, "TCP"), ServicePort("dns", 5353, "UDP"))
    service = Service(key, ports, cluster_ips=("127.90.1.1", "::1"))
    empty = EndpointSlice(SliceKey("shop", "web-1"), key, IPFamily.IPV4, (), ())
    async with printing(reader) as proxy:
        await proxy.put(service, [empty])
        lines = await reader.until(4)
    assert {(line["port"], line["protocol"], line["family"]) for line in lines} == {
        ("http", "TCP", "IPv4"),
        ("http", "TCP", "IPv6"),
        ("dns", "UDP", "IPv4"),
        ("dns", "UDP", "IPv6"),
    }


async def test_with_kernel_steering_the_cluster_ip_is_printed(make):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.1", POD))
    (served,) = served_ports
    assert str(dialled_address(served, Bind.PROXY_PORT)) == "10.96.0.1:80"
    (line,) = address_lines(served_ports, Bind.PROXY_PORT).values()
    assert json.loads(line)["address"] == "10.96.0.1:80"
    external = Frontend("10.97.0.1", 80, Protocol.TCP, FrontendKind.EXTERNAL_IP)
    more = replace(served, plan=replace(served.plan, frontends=(external, *served.plan.frontends)))
    assert str(dialled_address(more, Bind.PROXY_PORT)) == "10.96.0.1:80"


async def test_a_service_port_without_a_listener_has_no_address(make):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.1", POD))
    (served,) = served_ports
    assert dialled_address(replace(served, listeners={}), Bind.PROXY_PORT) is None


def test_only_differences_are_printed():
    old, new = '{"address": "127.0.0.1:1"}', '{"address": "127.0.0.1:2"}'
    assert changed_lines({}, {"a": old}) == [old]
    assert changed_lines({"a": old}, {"a": old, "b": new}) == [new]
    assert changed_lines({"a": old, "b": old}, {"b": new}) == [
        '{"address": null, "endpoints": 0}',
        new,
    ]


async def test_the_docs_have_a_row_for_each_field():
    reader = Reader()
    async with printing(reader) as proxy:
        await proxy.add_service("web", port=8080)
        (line,) = await reader.until(1)
    section = (DOCS / "in-tests.md").read_text().partition("## From any language")[2]
    table = section.partition("| field |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(line)
