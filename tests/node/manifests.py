"""Services as manifests, and the folder from which the agent under test reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

CLIENT_IP = {"sessionAffinity": "ClientIP"}


@dataclass(frozen=True, eq=False)
class Service:
    """A Service with one port and its endpoints."""

    name: str
    ip: str
    port: int = 80
    protocol: str = "TCP"
    endpoints: Sequence[str] = ()
    """Addresses that serve on the port ``target``."""
    target: int = 8080
    more: Mapping[str, Any] = field(default_factory=dict)
    """Additional fields of its spec."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        return self.ip, self.port

    def objects(self) -> Iterator[dict[str, Any]]:
        port = {"port": self.port, "protocol": self.protocol}
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "namespace": "shop",
                "name": self.name,
                "annotations": dict(self.annotations),
            },
            "spec": {"clusterIP": self.ip, "ports": [port], **self.more},
        }
        port = {"port": self.target, "protocol": self.protocol}
        yield slice_of(self.name, port, [{"addresses": [ip]} for ip in self.endpoints])


def slice_of(
    service: str, port: dict[str, Any], endpoints: list[dict[str, Any]], namespace: str = "shop"
) -> dict[str, Any]:
    """Return an IPv4 EndpointSlice with these endpoints of a Service."""
    label = {"kubernetes.io/service-name": service}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": f"{service}-1", "labels": label},
        "addressType": "IPv4",
        "ports": [port],
        "endpoints": endpoints,
    }


def with_endpoints(service: Service, ips: Iterable[str]) -> Service:
    return replace(service, endpoints=tuple(ips))


class Manifests:
    """The folder that the agent reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, *services: Service, name: str = "shop.yaml") -> None:
        """Atomically replace a file's content by these Services, like an editor."""
        self.write_objects((o for service in services for o in service.objects()), name=name)

    def write_objects(
        self, objects: Iterable[Mapping[str, Any]], *, name: str = "shop.yaml"
    ) -> None:
        """Atomically replace a file's content by these objects."""
        self.write_text("\n---\n".join(json.dumps(o, indent=1) for o in objects), name=name)

    def write_text(self, text: str, *, name: str = "shop.yaml") -> None:
        """Atomically replace a file's content by this text."""
        draft = self.folder / f".{name}.draft"
        draft.write_text(text)
        draft.replace(self.folder / name)
