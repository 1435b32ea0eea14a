"""The Services of a fake cluster; tests/cluster tests a real API server."""

import threading

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy_testing import kubernetes_services, pod_runner
from userspace_proxy_testing.kubernetes_services import KubernetesServices, UsedServices
from userspace_proxy_testing.report import describe

from .clusters import get


def test_looking_up_a_service_waits_for_its_creation(cluster, services):
    threading.Timer(0.05, cluster.put_service).start()
    assert services["shop/web"].address.ip == "127.0.0.1"


def test_an_unserved_service_is_an_error_with_the_cause(cluster, services, monkeypatch):
    monkeypatch.setattr(pod_runner, "EVENTUALLY_S", 0.05)
    cluster.put_service("headless", clusterIP="None")
    with pytest.raises(LookupError, match="shop/none is not served: there is no such Service"):
        services["shop/none"]
    with pytest.raises(LookupError, match=r"shop/headless is not served: .*headless"):
        services["shop/headless"]


def test_an_unreachable_cluster_is_an_error_and_leaves_no_thread(cluster, monkeypatch):
    monkeypatch.setattr(kubernetes_services, "_ANSWER_S", 0.2)
    cluster.stop()
    before = threading.active_count()
    services = KubernetesServices(str(cluster.kubeconfig))
    with pytest.raises(SourceError, match=r"cannot read the cluster of .*Connection refused"):
        services.start()
    assert threading.active_count() == before


def test_a_report_lists_the_pods_and_connections_of_the_used_services(cluster, services):
    cluster.put_service()
    cluster.put_service("other", clusterIP="10.96.0.11")
    cluster.put_service("headless", clusterIP="None")
    web = services["shop/web"]
    web.pods = {"web-1": None, "web-2": None}
    web.pods["web-2"].stop()
    get(web)
    web.eventually(lambda web: web.decisions)
    text = describe(UsedServices(services))
    assert f"shop/web: backends web-1 at {web.backends[0].address}, web-2 at" in text
    assert "(stopped)" in text
    assert " → " in text
    assert "other" not in text
    assert "headless" not in text
