"""The demo's broken Services: each has its intended mistake."""

import dataclasses

import pytest

from tests.kit.commands.test_demo_manifests import PODS, read
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.plan import Planner
from userspace_proxy.policy import NodeFacts
from userspace_proxy_testing.commands.demo_broken import (
    BROKEN_SERVICES,
    ELSEWHERE,
    RESETTING,
    SILENT,
    broken_manifests_for,
    broken_traffic,
)
from userspace_proxy_testing.commands.demo_manifests import manifests_for
from userspace_proxy_testing.sandbox.traffic import target

AT_RUN_TIME = {
    CauseCode.ENDPOINT_REFUSES,
    CauseCode.ENDPOINT_SILENT,
    CauseCode.ENDPOINT_UNREACHABLE,
    CauseCode.ENDPOINT_RESETS,
    CauseCode.SOURCE_DENIED,
}


@pytest.fixture
async def plan(tmp_path):
    """The plan of node-1 from the demo's manifests."""
    (tmp_path / "shop.yaml").write_text(manifests_for(PODS))
    (tmp_path / "broken.yaml").write_text(broken_manifests_for(PODS))
    snapshot, status = await read(tmp_path)
    assert status.problems == ()
    return Planner(NodeFacts(node_name="node-1")).plan(snapshot)


def test_there_are_at_least_ten_broken_services_with_distinct_mistakes():
    assert len({service.name for service in BROKEN_SERVICES}) >= 10
    assert len({service.code for service in BROKEN_SERVICES}) == len(BROKEN_SERVICES)


def test_planning_finds_each_mistake_visible_in_the_manifests(plan):
    found = {}
    for port in plan.ports.values():
        if port.key.name.namespace == "broken":
            causes = (port.cause, *port.notes)
            found[port.key.name.name] = {cause.code for cause in causes if cause}
    assert found == {
        service.name: set() if service.code in AT_RUN_TIME else {service.code}
        for service in BROKEN_SERVICES
    }


def test_services_with_failing_endpoints_dial_the_broken_pod_or_no_pod(plan):
    endpoints = {
        port.key.name.name: [str(address) for address in port.serving.endpoints]
        for port in plan.ports.values()
        if port.key.name.namespace == "broken"
    }
    broken = PODS["broken"]
    assert endpoints["refused"] == [f"{broken}:8080"]
    assert endpoints["resetting"] == [f"{broken}:{RESETTING}"]
    assert endpoints["silent"] == [f"{broken}:{SILENT}"]
    assert endpoints["nonexistent"][0].partition(":")[0] not in PODS.values()


async def test_following_the_local_policy_advice_makes_a_pod_usable(tmp_path):
    text = broken_manifests_for(PODS).replace(
        "internalTrafficPolicy: Local", "internalTrafficPolicy: Cluster"
    )
    (tmp_path / "broken.yaml").write_text(text)
    snapshot, _ = await read(tmp_path)
    plan = Planner(NodeFacts(node_name="node-1")).plan(snapshot)
    (local,) = (port for port in plan.ports.values() if port.key.name.name == "local")
    assert [str(address) for address in local.serving.endpoints] == [f"{ELSEWHERE}:8080"]


def test_the_load_balancer_address_admits_only_its_source_range(plan):
    admitted = {
        port.serving.admits
        for port in plan.ports.values()
        if port.key.name.name == "source-range" and port.serving.admits is not None
    }
    assert admitted == {("198.51.100.0/24",)}


def test_background_traffic_dials_every_broken_service():
    targets = [target(text) for text in broken_traffic()]
    assert [to.host for to in targets] == [
        service.dialled or service.cluster_ip for service in BROKEN_SERVICES
    ]
    assert {dataclasses.replace(to, host="").per_second for to in targets} == {0.5}
