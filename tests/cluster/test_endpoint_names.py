"""Endpoints by name that users write to a real API server, and a DNS server that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.dns_zone import Zone
from tests.unit.agent.watched import until
from userspace_proxy import Options, Proxy
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.names import name_leads_astray, networks_unknown
from userspace_proxy.facts import PortFacts
from userspace_proxy.lookup.dns_server import DnsServer
from userspace_proxy.lookup.node_resolver import NodeResolver
from userspace_proxy.model import SocketAddress
from userspace_proxy.sources.kubernetes import KubernetesSource

from .control_plane import ControlPlane

pytestmark = pytest.mark.cluster

OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: by-slice, namespace: shop}
spec: {ports: [{port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: by-slice-x
  namespace: shop
  labels: {kubernetes.io/service-name: by-slice}
  annotations: {userspace-proxy.io/weight: "7"}
addressType: FQDN
ports: [{port: 5433}]
endpoints: [{addresses: [db.example.com]}]
---
apiVersion: v1
kind: Service
metadata:
  name: by-annotation
  namespace: shop
  annotations: {userspace-proxy.io/endpoints: "sql=db.example.com:5432,http=web.example.com:8080"}
spec: {ports: [{name: sql, port: 5432}, {name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata:
  name: not-allowed
  namespace: shop
  annotations: {userspace-proxy.io/endpoints: "db.example.org:5432"}
spec: {ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata:
  name: to-pods
  namespace: shop
  annotations: {userspace-proxy.io/endpoints: "pod.example.com:5432"}
spec: {ports: [{port: 5432}]}
"""
RECORDS = {
    "db.example.com A": [60, "203.0.113.1", "203.0.113.2"],
    "web.example.com A": [60, "203.0.113.3"],
    "pod.example.com A": [60, "10.244.0.7"],
}


@pytest.fixture
async def resolver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[], None]]:
    """The node's DNS server."""
    zone = Zone()
    zone.records = dict(RECORDS)
    server = DnsServer(zone.respond)
    address = await server.open(SocketAddress("127.0.0.1", 0))
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    monkeypatch.setattr(NodeResolver.__init__, "__defaults__", (resolv_conf, address.port))
    yield zone.records.clear
    await server.close()


async def port_of(proxy: Proxy, service: str, done: Callable[[PortFacts], object]) -> PortFacts:
    """Return a Service port of the namespace shop once a condition holds for it."""
    found: list[PortFacts] = []

    def holds() -> bool:
        found[:] = [p for p in proxy.status().ports if p.name == f"shop/{service}" and done(p)]
        return bool(found)

    await until(holds)  # type: ignore[no-untyped-call]
    return found[0]


def endpoints(port: PortFacts) -> list[str]:
    return [endpoint.address for endpoint in port.endpoints if endpoint.is_usable]


async def test_the_api_server_accepts_both_forms_of_names(
    control_plane: ControlPlane, resolver: Callable[[], None]
) -> None:
    control_plane.kubectl("apply", "-f", "-", input=OBJECTS)
    source = KubernetesSource(kubeconfig=str(control_plane.kubeconfig))
    options = Options(allow_endpoint_names=("example.com",), cluster_networks=("10.244.0.0/16",))
    async with Proxy(source=source, options=options) as proxy:
        await proxy.settled()
        by_slice = await port_of(proxy, "by-slice", endpoints)
        assert endpoints(by_slice) == ["203.0.113.1:5433", "203.0.113.2:5433"]
        assert {endpoint.weight for endpoint in by_slice.endpoints} == {7}
        sql = await port_of(proxy, "by-annotation:sql", endpoints)
        assert endpoints(sql) == ["203.0.113.1:5432", "203.0.113.2:5432"]
        http = await port_of(proxy, "by-annotation:http", endpoints)
        assert endpoints(http) == ["203.0.113.3:8080"]
        denied = await port_of(proxy, "not-allowed", lambda port: port.cause)
        assert denied.cause is not None
        assert denied.cause.code is CauseCode.NAME_NOT_ALLOWED
        to_pods = await port_of(
            proxy,
            "to-pods",
            lambda p: p.cause and p.cause.code is CauseCode.ENDPOINT_NOT_ALLOWED,
        )
        where = "10.244.0.7, which is in the network of pods"
        assert to_pods.cause == name_leads_astray("pod.example.com", where)


async def test_in_a_cluster_names_need_the_networks_of_pods(
    control_plane: ControlPlane, resolver: Callable[[], None]
) -> None:
    control_plane.kubectl("apply", "-f", "-", input=OBJECTS)
    source = KubernetesSource(kubeconfig=str(control_plane.kubeconfig))
    async with Proxy(
        source=source, options=Options(allow_endpoint_names=("example.com",))
    ) as proxy:
        await proxy.settled()
        port = await port_of(proxy, "by-slice", lambda port: port.cause)
        assert port.cause == networks_unknown("db.example.com")
