"""Objects of a cluster of any size, and the facts that an agent would report for them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from userspace_proxy.cluster import Snapshot
from userspace_proxy.explain.planned import plan_status
from userspace_proxy.facts import Level, StatusFacts
from userspace_proxy.facts.node import PlanFacts
from userspace_proxy.plan.digest import FORM, digests_of, summary_of
from userspace_proxy.policy import PolicyOptions
from userspace_proxy.sources.manifests import load_state

from .api_objects import Object

NOW = 1_795_000_000.0


def service_objects(
    count: int, *, endpoints: int = 3, namespaces: int = 20, nodes: Sequence[str] = ()
) -> list[Object]:
    """Return Services, each with a ClusterIP and an EndpointSlice.

    Args:
        endpoints: The number of ready endpoints per Service.
        namespaces: The number of namespaces over which the Services are spread.
        nodes: The endpoints' nodes, in turn; empty for endpoints without a node.
    """
    items: list[Object] = []
    for number in range(count):
        name, namespace = f"service-{number}", f"team-{number % namespaces}"
        ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
        items.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "clusterIP": f"10.96.{number >> 8}.{number & 255}",
                    "selector": {"app": name},
                    "ports": [{**ports[0], "targetPort": 8080}],
                },
            }
        )
        items.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{name}-1",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": "IPv4",
                "ports": [{**ports[0], "port": 8080}],
                "endpoints": [
                    _endpoint(number * endpoints + place, namespace, nodes)
                    for place in range(endpoints)
                ],
            }
        )
    return items


def _endpoint(number: int, namespace: str, nodes: Sequence[str]) -> Object:
    node = {"nodeName": nodes[number % len(nodes)]} if nodes else {}
    return {
        "addresses": [f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"],
        "conditions": {"ready": True},
        "targetRef": {"kind": "Pod", "name": f"pod-{number}", "namespace": namespace},
        **node,
    }


def status_of(
    objects: Sequence[Object], node: str, *, now: float = NOW, version: str = "0.1.0"
) -> StatusFacts:
    """Return the answer of an agent that has planned these objects and had no client yet."""
    snapshot = _snapshot_of(objects)
    facts = plan_status(snapshot, PolicyOptions(node_name=node), now=now, steering="nftables")
    facts.version = version
    digests = digests_of(snapshot.services)
    facts.plan = PlanFacts(FORM, summary_of(digests)[0], len(digests), summary_of(digests)[1])
    facts.served = sum(port.state.level is Level.OK for port in facts.ports)
    return facts


def plan_digests(objects: Sequence[Object]) -> dict[str, str]:
    """Return the digests of an agent that has planned these objects, by ``namespace/name``."""
    return digests_of(_snapshot_of(objects).services)


def _snapshot_of(objects: Sequence[Object]) -> Snapshot:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "objects.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        return load_state(path).snapshot
