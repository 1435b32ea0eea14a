"""The Services of a soak as API objects, and the pods that serve them.

web      keep-alive and short connections; its pods are replaced one by one
sticky   ClientIP affinity             dns    UDP
source   large answers                 churn-N   come and go
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.api_client import Api
from userspace_proxy_testing.sandbox import SandboxNode
from userspace_proxy_testing.sandbox.backend_process import BackendProcess

NAMESPACE = "soak"
PORTS = {"tcp": 8080, "source": 9000, "udp": 5353}
CHURNED = 5
_SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
_SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"

Object = Mapping[str, Any]


@dataclass(frozen=True)
class ShopService:
    """One Service."""

    name: str
    ip: str
    port: int
    target: int
    protocol: str = "TCP"
    more: Object = field(default_factory=dict)

    def service(self) -> dict[str, Any]:
        port = {"port": self.port, "protocol": self.protocol, "targetPort": self.target}
        return {
            "metadata": {"namespace": NAMESPACE, "name": self.name},
            "spec": {"clusterIP": self.ip, "ports": [port], **self.more},
        }

    def slice(self, ready: Sequence[str], terminating: Sequence[str] = ()) -> dict[str, Any]:
        return {
            "metadata": {
                "namespace": NAMESPACE,
                "name": self.name,
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "", "port": self.target, "protocol": self.protocol}],
            "endpoints": [
                *({"addresses": [ip], "conditions": _conditions(is_ready=True)} for ip in ready),
                *(
                    {"addresses": [ip], "conditions": _conditions(is_ready=False)}
                    for ip in terminating
                ),
            ],
        }


WEB = ShopService("web", "10.96.0.10", 80, PORTS["tcp"])
STICKY = ShopService("sticky", "10.96.0.20", 80, PORTS["tcp"], more={"sessionAffinity": "ClientIP"})
DNS = ShopService("dns", "10.96.0.53", 53, PORTS["udp"], "UDP")
SOURCE = ShopService("source", "10.96.0.90", 90, PORTS["source"])
SERVICES = (WEB, STICKY, DNS, SOURCE)
ADDRESSES = {service.name: (service.ip, service.port) for service in SERVICES}


class Shop:
    """The objects in the API server, and the pods behind them."""

    def __init__(self, api: Api, node: SandboxNode) -> None:
        self._api = api
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
        """Kill a pod's server: its kernel refuses connections."""
        self._servers[name].stop()

    def begin_replacement(self) -> str:
        """Replace the oldest pod of ``web``, as a rolling update does; return the old pod."""
        old, self._spare = self.web.pop(0), self._spare
        self.web.append(self._spare)
        self._spare = old
        self.put_web(terminating=[old])
        return old

    def churn(self) -> Iterator[None]:
        """Add some Services, change them, remove them; yields in between."""
        churned = [
            ShopService(f"churn-{n}", f"10.96.1.{n}", 80, PORTS["tcp"]) for n in range(1, CHURNED)
        ]
        for service in churned:
            self._api.put(_SERVICES, service.service())
            self._put_slice(service, ["fixed"])
        yield
        for service in churned:
            self._put_slice(service, ["one", "fixed"])
        yield
        for service in churned:
            self._api.ask("DELETE", f"{_SERVICES}/{service.name}")
            self._api.ask("DELETE", f"{_SLICES}/{service.name}")

    def _put_slice(
        self, service: ShopService, ready: Sequence[str], terminating: Sequence[str] = ()
    ) -> None:
        ips, ending = ([str(self._pods[n].ip) for n in names] for names in (ready, terminating))
        self._api.put(_SLICES, service.slice(ips, ending))


def _conditions(*, is_ready: bool) -> dict[str, bool]:
    return {"ready": is_ready, "serving": True, "terminating": not is_ready}
