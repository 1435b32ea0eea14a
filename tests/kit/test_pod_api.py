import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.model import ServiceKey
from userspace_proxy.model.pod_endpoints import PodKey, PodPort, read_pod
from userspace_proxy.model.wire import WirePod, convert
from userspace_proxy_testing.pod_api import PodApi, make_pod

WEB = ServiceKey("shop", "web")
POD = PodKey("shop", "web-1")


@pytest.fixture
def ask(cluster):
    """Return a function that calls a method of a new PodApi and returns its result."""

    async def call(method, *arguments, **more):
        api = PodApi(str(cluster.kubeconfig))
        await api.open()
        try:
            return await getattr(api, method)(*arguments, **more)
        finally:
            await api.close()

    return lambda *a, **more: cluster.thread.call(call(*a, **more))


def state(cluster, name="web-1"):
    """Return a Pod as a source reads it."""
    return read_pod(convert(cluster.pods()[name], WirePod))


def test_a_service_is_read_with_the_pods_it_selects(cluster, ask):
    cluster.put_service()
    service, selection = ask("service", WEB)
    assert service.selector == (("app", "web"),)
    assert [target.port for target in selection.targets] == ["web"]


def test_a_nonexistent_service_is_a_lookup_error(ask):
    with pytest.raises(LookupError, match="there is no Service shop/web"):
        ask("service", WEB)


def test_pods_are_selected_by_labels_and_sorted(cluster, ask):
    for name, app in (("b", "web"), ("a", "web"), ("c", "db")):
        cluster.put_pod(name, app=app)
    found = ask("pods", "shop", [("app", "web")])
    assert [item["metadata"]["name"] for item in found] == ["a", "b"]


def test_a_created_pod_has_the_selected_labels_and_target_ports(cluster, ask):
    ports = [
        {"name": "http", "port": 80, "targetPort": "web"},
        {"name": "admin", "port": 81, "targetPort": 8080},
        {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
    ]
    cluster.put_service(ports=ports)
    ask("create", make_pod(POD, *ask("service", WEB)))
    made = state(cluster)
    assert made.labels == {("app", "web")}
    # 8080 is another target port's number, so no named port gets it.
    assert made.ports == {("dns", "UDP"): 8081, ("web", "TCP"): 8082}


def test_creating_an_existing_pod_is_a_conflict(cluster, ask):
    cluster.put_service()
    cluster.put_pod("web-1")
    with pytest.raises(SourceError, match="Conflict"):
        ask("create", make_pod(POD, *ask("service", WEB)))


def test_a_pod_reports_its_given_address_and_ports_and_becomes_unready(cluster, ask):
    cluster.put_pod("web-1", {"name": "web", "containerPort": 80})
    ports = {PodPort(80, "TCP"): 41123, PodPort(53, "UDP"): 41124}
    ask("set_running", POD, "127.0.0.2", ports, is_ready=True)
    running = state(cluster)
    assert (running.ips, running.is_ready) == (("127.0.0.2",), True)
    assert running.listens_at == ports
    ask("set_running", POD, "127.0.0.2", ports, is_ready=False)
    assert not state(cluster).is_ready


def test_a_pod_terminates_until_it_is_removed(cluster, ask):
    cluster.put_pod("web-1")
    ask("terminate", POD)
    assert state(cluster).is_terminating
    assert ask("pods", "shop", [("app", "web")]) == []
    ask("remove", POD)
    ask("remove", POD)
    assert cluster.pods() == {}


def test_restoring_a_pod_resets_its_status_and_annotations(cluster, ask):
    cluster.put_pod("web-1")
    (before,) = ask("pods", "shop", [("app", "web")])
    ask("set_running", POD, "127.0.0.2", {PodPort(80, "TCP"): 1}, is_ready=True)
    ask("restore", before)
    after = cluster.pods()["web-1"]
    assert after["status"] == before["status"]
    assert after["metadata"]["annotations"] == {}


def test_a_recreated_pod_of_the_same_name_is_not_restored(cluster, ask):
    cluster.put_pod("web-1")
    (before,) = ask("pods", "shop", [("app", "web")])
    cluster.put("Pod", "web-1", {}, metadata={"uid": "another"}, status={"phase": "Running"})
    ask("restore", before)
    assert cluster.pods()["web-1"]["status"] == {"phase": "Running"}
    cluster.delete_pod("web-1")
    ask("restore", before)
    assert cluster.pods() == {}


def test_a_rejected_request_raises_the_servers_message(cluster, ask):
    cluster.thread.do(lambda: cluster.api.refuse("pods", 403, message="pods is forbidden"))
    with pytest.raises(SourceError, match="pods is forbidden"):
        ask("pods", "shop", [("app", "web")])


def test_an_unreachable_server_is_reported(cluster, ask):
    cluster.stop()
    with pytest.raises(SourceError, match="cannot reach the API server"):
        ask("pods", "shop", [("app", "web")])
