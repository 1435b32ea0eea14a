"""Draws objects: Services, EndpointSlices and Nodes, of which some can't be read."""

from __future__ import annotations

from random import Random
from typing import Any

from .details import add_details
from .draft import Draft
from .plan import CROWDED, NODE

_NAMESPACES = ("default", "shop", CROWDED)
_KINDS = ("Service", "Service", "EndpointSlice", "EndpointSlice", "Node")
_WITH_DETAILS = 0.3
_CONDITIONS: tuple[dict[str, bool | None], ...] = (
    {},
    {"ready": True},
    {"ready": None, "serving": None, "terminating": None},
    {"ready": False, "terminating": True},
    {"ready": False, "serving": False, "terminating": False},
    {"ready": False, "serving": True, "terminating": True},
)


class Objects:
    """The objects of one plan."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        # By numbers of its own, so that all else of the plan is as without it.
        self._details = Random(f"{draft.seed}: details")
        if self._details.random() < _WITH_DETAILS:
            draft.features.add("details")

    def key(self, kind: str = "") -> tuple[str, str, str]:
        """Return kind, namespace and name."""
        rng = self.draft.rng
        namespace = rng.choice(_NAMESPACES)
        if self.draft.has("shares") and rng.random() < 0.5:
            namespace = CROWDED
        kind = kind or rng.choice(_KINDS)
        if kind == "Node":
            return kind, "", rng.choice((NODE, NODE, "bob", "carol"))
        count = 12 if self.draft.has("large") or namespace == CROWDED else 4
        number = rng.randrange(count)
        name = f"web-{number}" if kind == "Service" else f"web-{number % 4}-{number // 4 + 1}"
        return kind, namespace, name

    def item(self) -> dict[str, Any]:
        kind, namespace, name = self.key()
        metadata: dict[str, Any] = {"name": name}
        if namespace:
            metadata["namespace"] = namespace
        if kind == "Service":
            item = self._service(metadata)
        elif kind == "EndpointSlice":
            item = self._slice(metadata, name)
        else:
            item = self.node(metadata)
        if self.draft.has("details") and self._details.random() < 0.7:
            add_details(self._details, item)
        if self.draft.has("invalid") and self.draft.rng.random() < 0.25:
            self.spoil(item)
        return item

    def _service(self, metadata: dict[str, Any]) -> dict[str, Any]:
        rng = self.draft.rng
        spec: dict[str, Any] = {
            "clusterIP": f"10.96.{rng.randrange(3)}.{rng.randint(1, 250)}",
            "type": rng.choice(("ClusterIP", "NodePort", "LoadBalancer")),
            "selector": {"app": "web"},
            "ports": [
                {
                    "name": f"p{n}",
                    "port": 80 + n,
                    "protocol": rng.choice(("TCP", "UDP")),
                    "nodePort": rng.choice((0, 30080 + n)),
                }
                for n in range(rng.choice((1, 1, 2, 5)))
            ],
            "sessionAffinity": rng.choice(("None", "ClientIP")),
            "internalTrafficPolicy": rng.choice(("Cluster", "Local")),
            "externalTrafficPolicy": rng.choice(("Cluster", "Local")),
        }
        if rng.random() < 0.1:
            spec["clusterIP"] = "None"
        elif self.draft.has("families"):
            other = f"fd00:10:96::{rng.randrange(3)}:{rng.randint(1, 250)}"
            spec["clusterIPs"] = rng.choice(([spec["clusterIP"]], [spec["clusterIP"], other]))
        if spec["sessionAffinity"] == "ClientIP" and rng.random() < 0.5:
            seconds = rng.choice((1, 60, 86400))
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": seconds}}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    def _slice(self, metadata: dict[str, Any], name: str) -> dict[str, Any]:
        rng = self.draft.rng
        of = name.rpartition("-")[0] if rng.random() < 0.85 else f"web-{rng.randrange(4)}"
        metadata["labels"] = {"kubernetes.io/service-name": of} if rng.random() < 0.95 else {}
        is_ipv6 = self.draft.has("families") and rng.random() < 0.4
        network, sign = ("fd00:10:244::", ":") if is_ipv6 else ("10.244.", ".")
        endpoints = [
            {
                "addresses": [f"{network}{rng.randrange(2)}{sign}{rng.randint(1, 250)}"],
                "conditions": dict(rng.choice(_CONDITIONS)),
                "nodeName": rng.choice((NODE, "bob")),
            }
            for _ in range(rng.choice((0, 1, 2, 3, 10)))
        ]
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv6" if is_ipv6 else "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "p0", "port": 8080, "protocol": "TCP"}],
        }

    def node(self, metadata: dict[str, Any]) -> dict[str, Any]:
        addresses = [{"type": "InternalIP", "address": f"10.1.0.{self.draft.rng.randint(1, 250)}"}]
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": metadata,
            "status": {"addresses": addresses},
        }

    def spoil(self, item: dict[str, Any]) -> None:
        """Make an object one that can't be read."""
        if item["kind"] == "Service":
            ports = item["spec"]["ports"]
            ports[-1] = self.draft.rng.choice(({"port": 0}, {"port": "http"}, {"name": "x"}))
        elif item["kind"] == "EndpointSlice":
            item["addressType"] = self.draft.rng.choice(("IPv5", 4, None))
        else:
            item["status"] = self.draft.rng.choice((7, {"addresses": "none"}))
        item["is-invalid"] = True
