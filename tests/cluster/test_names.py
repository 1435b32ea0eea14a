"""Each DNS answer equals CoreDNS's for the same Services of a real API server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from userspace_proxy import Options, Proxy
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy_testing.fakes.steering import FakeSteering

from .build import Binaries
from .child import Child
from .control_plane import ControlPlane

pytestmark = pytest.mark.cluster

DEADLINE_S = 120.0

NAMES = """
web.shop.svc             web                      web.shop          shop.svc        svc
WEB.Shop.svc             none.shop.svc            web.none.svc      shop.pod        pod
10-244-0-3.web.shop.svc  10-9-9-9.web.shop.svc    a.b.web.shop.svc  a.b.c.web.shop.svc
_http._tcp.web.shop.svc  _http._udp.web.shop.svc  _dns._udp.web.shop.svc  _ftp._tcp.web.shop.svc
http.tcp.web.shop.svc    single.shop.svc          _http._tcp.single.shop.svc
db.shop.svc              db-0.db.shop.svc         10-244-0-5.db.shop.svc  10-244-0-6.db.shop.svc
fd00-244--4.db.shop.svc  _http._tcp.db.shop.svc   _http._tcp.db-0.db.shop.svc
two-protocols.shop.svc   _dns._udp.two-protocols.shop.svc
two-families.shop.svc    _http._tcp.two-families.shop.svc  web-0.two-families.shop.svc
empty.shop.svc           portless.shop.svc        _http._tcp.portless.shop.svc
10-244-0-7.portless.shop.svc                      unlabelled.shop.svc
search.shop.svc          x.search.shop.svc        alias.shop.svc    second.shop.svc
dangling.shop.svc        loop.shop.svc            list.shop.svc
10-9-8-7.shop.pod        fd00--1.shop.pod         web.shop.pod      10-9-8-7.none.pod
x.10-9-8-7.shop.pod      dns-version              ns.dns            kubernetes.default.svc
"""
REVERSE = """
10.0.96.10.in-addr.arpa.  11.0.96.10.in-addr.arpa.  3.0.244.10.in-addr.arpa.
4.0.244.10.in-addr.arpa.  5.0.244.10.in-addr.arpa.  6.0.244.10.in-addr.arpa.
9.9.9.9.in-addr.arpa.     1.1.in-addr.arpa.         in-addr.arpa.     web.shop.in-addr.arpa.
4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa.
0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.
"""
TYPES = ("A", "AAAA", "SRV", "CNAME", "TXT", "PTR", "MX", "SOA", "HTTPS")

# CoreDNS answers NXDOMAIN although the name has records of other types.
EXCEPT = {"ns.dns.cluster.local. PTR"}


def questions() -> list[str]:
    names = [f"{name}.cluster.local." for name in NAMES.split()]
    return ["cluster.local.", *names, *REVERSE.split()]


@pytest.fixture(scope="module")
def control_plane(cluster_binaries: Binaries) -> Iterator[ControlPlane]:
    """An API server with Services of both families."""
    cidr = "10.96.0.0/16,fd00:96::/112"
    with ControlPlane(cluster_binaries, service_cidr=cidr) as control_plane:
        control_plane.kubectl("create", "namespace", "shop")
        manifest = Path(__file__).with_name("names.yaml")
        control_plane.kubectl("apply", "-f", str(manifest))
        yield control_plane


@pytest.fixture(scope="module")
def coredns(
    control_plane: ControlPlane,
    coredns_program: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, int]]:
    """The address of CoreDNS for these Services."""
    folder = tmp_path_factory.mktemp("coredns")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "Corefile").write_text(f"""\
.:{port} {{
    bind 127.0.0.1
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {control_plane.kubeconfig}
        pods insecure
        ttl 5
    }}
}}
""")
    child = Child([coredns_program, "-conf", folder / "Corefile"], folder / "log")
    try:
        yield "127.0.0.1", port
    finally:
        child.kill()


@pytest.fixture
async def server(control_plane: ControlPlane) -> AsyncIterator[tuple[str, int]]:
    """The address of this proxy's DNS server for these Services."""
    source = KubernetesSource(kubeconfig=str(control_plane.kubeconfig), with_headless=True)
    options = Options(dns=("127.0.0.1", 0))
    async with Proxy(steering=FakeSteering(), source=source, options=options) as proxy:
        await proxy.settled()
        assert proxy.dns_address is not None
        yield proxy.dns_address


async def ask(address: tuple[str, int], name: str, type_: str) -> dns.message.Message:
    query = dns.message.make_query(name, type_, use_edns=True, payload=4096)
    return await dns.asyncquery.udp(query, address[0], port=address[1], timeout=60)


def readable(answer: dns.message.Message) -> dict[str, Any]:
    """Return the parts of an answer that matter to clients, without order and SOA serial."""
    sections = {
        "answer": answer.answer,
        "authority": answer.authority,
        "additional": answer.additional,
    }
    lines: dict[str, Any] = {
        name: sorted(
            f"{rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {_data(rdata)}".lower()
            for rrset in section
            for rdata in rrset
        )
        for name, section in sections.items()
    }
    return lines | {"code": dns.rcode.to_text(answer.rcode()), "flags": int(answer.flags)}


def _data(rdata: Any) -> str:
    if rdata.rdtype == dns.rdatatype.SOA:
        rdata = rdata.replace(serial=0)
    return str(rdata.to_text())


async def wait_until_answering(address: tuple[str, int]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                answer = await ask(address, "alias.shop.svc.cluster.local.", "A")
            except (OSError, dns.exception.DNSException):
                continue
            if answer.answer:
                return


async def test_each_dns_response_matches_coredns_apart_from_listed_exceptions(
    coredns: tuple[str, int], server: tuple[str, int]
) -> None:
    await wait_until_answering(coredns)
    differing = {}
    asked = [(name, type_) for name in questions() for type_ in TYPES]
    for name, type_ in asked:
        expected = readable(await ask(coredns, name, type_))
        found = readable(await ask(server, name, type_))
        if found != expected:
            differing[f"{name} {type_}"] = [
                (key, found[key], expected[key]) for key in found if found[key] != expected[key]
            ]
    assert len(asked) > 500
    assert differing.keys() == EXCEPT, differing
