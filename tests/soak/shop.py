"""The Services of a soak as API objects, and the pods that serve them.

web      keep-alive and short connections; its pods are replaced one by one
sticky   ClientIP affinity        dns      UDP
source   large answers            churn-N  added and removed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.cluster.api_client import Api
from tests.promises.specs import NAMESPACE, At, Port, Spec
from userspace_proxy_testing.sandbox import SandboxNode
from userspace_proxy_testing.sandbox.backend_process import BackendProcess

PORTS = {"tcp": 8080, "source": 9000, "udp": 5353}
CHURNED = 5
_SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
_SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"


WEB = Spec("web", ["10.96.0.10"], [Port(target=PORTS["tcp"])])
STICKY = WEB.but(name="sticky", ips=["10.96.0.20"], more={"sessionAffinity": "ClientIP"})
DNS = Spec("dns", ["10.96.0.53"], [Port(53, "UDP", PORTS["udp"])])
SOURCE = Spec("source", ["10.96.0.90"], [Port(90, target=PORTS["source"])])
SERVICES = (WEB, STICKY, DNS, SOURCE)
ADDRESSES = {service.name: service.address for service in SERVICES}


class Shop:
    """The objects at the API server, and the pods that serve them."""

    def __init__(self, api: Api, node: SandboxNode) -> None:
        self._api = api
        self._node = node.name
        self._pods = {name: node.add_pod(name) for name in ("one", "two", "three", "fixed")}
        self._servers: dict[str, BackendProcess] = {}
        for name in self._pods:
            self.start_server(name)
        self.web = ["one", "two"]
        """The pods of the Service ``web``."""
        self._spare = "three"
        self._api.put("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for service in SERVICES:
            self._api.put(_SERVICES, service.service())
        for service in (STICKY, DNS, SOURCE):
            self._put_slice(service, ["fixed"])
        self.put_web()

    def put_web(self, terminating: Sequence[str] = ()) -> None:
        self._put_slice(WEB, self.web, terminating)

    def start_server(self, name: str) -> None:
        self._servers[name] = self._pods[name].serve(None, **PORTS)

    def stop_server(self, name: str) -> None:
        """Kill a pod's server, so that the kernel refuses connections to it."""
        self._servers[name].stop()

    def begin_replacement(self) -> str:
        """Replace the oldest pod of ``web``, as a rolling update does; return the old pod."""
        old, self._spare = self.web.pop(0), self._spare
        self.web.append(self._spare)
        self._spare = old
        self.put_web(terminating=[old])
        return old

    def churn(self) -> Iterator[None]:
        """Add some Services, change them, and remove them; yield between these steps."""
        churned = [WEB.but(name=f"churn-{n}", ips=[f"10.96.1.{n}"]) for n in range(1, CHURNED)]
        for service in churned:
            self._api.put(_SERVICES, service.service())
            self._put_slice(service, ["fixed"])
        yield
        for service in churned:
            self._put_slice(service, ["one", "fixed"])
        yield
        for service in churned:
            self._api.ask("DELETE", f"{_SERVICES}/{service.name}")
            self._api.ask("DELETE", f"{_SLICES}/{service.name}-ipv4-0")

    def _put_slice(
        self, service: Spec, ready: Sequence[str], terminating: Sequence[str] = ()
    ) -> None:
        ends = [self._at(name) for name in ready]
        ends += [self._at(n, ready=False, serving=True, terminating=True) for n in terminating]
        for item in service.at(*ends).endpoint_slices():
            self._api.put(_SLICES, item)

    def _at(self, name: str, **conditions: bool) -> At:
        return At(str(self._pods[name].ip), self._node, **conditions)
