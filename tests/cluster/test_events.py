"""Kubernetes Events at a real kube-apiserver, which accepts, lists or rejects them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.unit.sources.kubernetes.objects import service
from tests.unit.sources.running import running
from userspace_proxy.model import ServiceKey
from userspace_proxy.sources import Happening
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.permissions import ask_server

from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .waiting import wait_for

pytestmark = pytest.mark.cluster

NODE = "node-1"
REPAIRED = Happening("SteeringRepaired", "Repair", "3 rules had been changed; put right")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def source(control_plane: ControlPlane) -> KubernetesSource:
    """A source of an unprivileged user with the documented role."""
    control_plane.grant_node_proxier()
    kubeconfig = control_plane.kubeconfig_for(NODE_PROXIER)
    return KubernetesSource(kubeconfig=str(kubeconfig), node_name=NODE)


def events(control_plane: ControlPlane, reason: str) -> list[dict[str, Any]]:
    """Return the Events with a reason, by the API group events.k8s.io."""
    said = control_plane.kubectl("get", "--raw", "/apis/events.k8s.io/v1/events")
    items: list[dict[str, Any]] = json.loads(said)["items"]
    return [item for item in items if item["reason"] == reason]


async def eventually(control_plane: ControlPlane, reason: str, count: int) -> dict[str, Any]:
    """Return the only Event with a reason, once it has this count."""

    def there() -> bool:
        found = events(control_plane, reason)
        return bool(found) and found[0].get("series", {"count": 1})["count"] == count

    await asyncio.to_thread(wait_for, f"the Event {reason}", there)
    (event,) = events(control_plane, reason)
    return event


async def test_repairs_are_reported_as_one_counted_event_of_the_node(
    control_plane: ControlPlane, source: KubernetesSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    source._recorder._every_s = 0.1
    async with running(source) as published:
        await published.first()
        source.record(REPAIRED)
        event = await eventually(control_plane, "SteeringRepaired", 1)
        source.record(REPAIRED)
        source.record(REPAIRED)
        again = await eventually(control_plane, "SteeringRepaired", 3)
    assert event["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": NODE}
    assert (event["reportingController"], event["reportingInstance"]) == ("userspace-proxy", NODE)
    assert again["metadata"]["name"] == event["metadata"]["name"]


async def test_a_conflict_event_appears_in_the_services_description(
    control_plane: ControlPlane, source: KubernetesSource
) -> None:
    control_plane.apply(service())
    key = ServiceKey("default", "web")
    async with running(source) as published:
        await published.first()
        source.record(Happening("ServiceNotServed", "Serve", "somebody has it", service=key))
        await eventually(control_plane, "ServiceNotServed", 1)
    described = control_plane.kubectl("describe", "service", "web")
    assert "somebody has it" in described
    control_plane.kubectl("delete", "service", "web")


async def test_a_check_of_the_api_server_needs_only_the_rights_of_a_node_proxier(
    control_plane: ControlPlane,
) -> None:
    control_plane.grant_node_proxier()
    kubeconfig = str(control_plane.kubeconfig_for(NODE_PROXIER))
    said = await ask_server(kubeconfig=kubeconfig, master="", node_name=NODE, within_s=10.0)
    assert said.problems == ()
    assert said.version.startswith("v1.")
    # The Service that the API server maintains itself.
    assert said.service_ips[0].startswith("10.96.")
