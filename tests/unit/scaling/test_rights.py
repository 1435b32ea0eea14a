"""Tests of which Services may scale a workload."""

import pytest

from userspace_proxy.cluster.store import ServiceState
from userspace_proxy.model import ServiceKey, ServiceType, Workload, WorkloadKind
from userspace_proxy.scaling.rights import other_user, refusal_reason, selector_of

from ..agent.samples import service

WEB = ServiceKey("shop", "web")
WORKLOAD = Workload(WorkloadKind.DEPLOYMENT, "web")
APP, TIER = ("app", "web"), ("tier", "front")


@pytest.mark.parametrize(
    ("selector", "labels", "missing"),
    [
        pytest.param((APP,), dict([APP]), None, id="equal"),
        pytest.param((APP,), dict([APP, TIER]), None, id="fewer"),
        pytest.param((APP, TIER), dict([APP]), " tier=front", id="more"),
        pytest.param((("app", "api"),), dict([APP]), " app=api", id="another-value"),
        pytest.param((), dict([APP]), "no selector", id="none"),
        pytest.param((APP,), {}, " app=web", id="unknown"),
    ],
)
def test_a_service_may_scale_a_workload_whose_pods_match_its_selector(selector, labels, missing):
    why = refusal_reason(selector, WORKLOAD, labels)
    assert (not why) is (missing is None)
    assert (missing or "") in why


@pytest.mark.parametrize(
    ("fields", "selector"),
    [({}, (APP,)), ({"type": ServiceType.EXTERNAL_NAME}, ())],
    ids=["pods", "external-name"],
)
def test_an_external_name_service_selects_no_pods(fields, selector):
    services = {WEB: ServiceState(service("web", "10.96.0.1", selector=(APP,), **fields), ())}
    assert selector_of(services, WEB) == selector


def test_the_selector_of_a_deleted_service_is_empty():
    assert selector_of({}, WEB) == ()


def test_only_a_service_of_the_same_namespace_keeps_a_workload_running():
    state = ServiceState(service("api", "10.96.0.1", selector=(APP,)), ())
    keys = [ServiceKey(namespace, "api") for namespace in ("shop", "other")]
    said = [other_user({key: state}, [], [WEB], WORKLOAD, dict([APP])) for key in keys]
    assert list(map(bool, said)) == [True, False]
