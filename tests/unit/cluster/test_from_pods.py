import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.cluster import Store, from_pods
from userspace_proxy.cluster.from_pods import PodEndpoints
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
)
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.pod_endpoints import PodEndpoint, PodKey, PodSelection, TargetPort

TO_8080 = PodSelection((TargetPort("", "TCP", 8080),), (IPFamily.IPV4,))


def service(name="web", app="web", **fields):
    selector = {"selector": (("app", app),)} if app else {}
    ports = (ServicePort("", 80, "TCP"),)
    return Service(
        ServiceKey("shop", name), ports, cluster_ips=("10.96.0.1",), **selector, **fields
    )


def pod(name="web-1", ip="10.244.0.3", app="web", namespace="shop", **fields):
    facts = {"is_ready": True, "is_terminating": False, "has_ended": False, **fields}
    labels = frozenset({("app", app), ("tier", "front")})
    return PodEndpoint(PodKey(namespace, name), labels, (ip,), **facts)


def written(ip="192.0.2.7", name="web-abc", of="web"):
    return EndpointSlice(
        SliceKey("shop", name),
        ServiceKey("shop", of),
        IPFamily.IPV4,
        (SlicePort("", 8080, "TCP"),),
        (Endpoint(ip),),
    )


class Cluster:
    def __init__(self, *, with_headless=False):
        self.store = Store()
        self.pods = PodEndpoints(self.store, with_headless=with_headless)

    def ips(self, name="web"):
        """Return the addresses of a Service's endpoints."""
        self.pods.settle()
        state = self.store.snapshot().services[ServiceKey("shop", name)]
        return [endpoint.ip for item in state.slices for endpoint in item.endpoints]


@pytest.fixture
def cluster():
    cluster = Cluster()
    cluster.pods.put_service(service(), TO_8080)
    return cluster


def test_the_endpoints_of_a_service_are_the_pods_matching_its_selector(cluster):
    cluster.pods.put_pod(pod("web-2", "10.244.0.4"))
    cluster.pods.put_pod(pod())
    cluster.pods.put_pod(pod("db-1", "10.244.0.9", app="db"))
    cluster.pods.put_pod(pod("far-1", "10.244.0.8", namespace="other"))
    assert cluster.ips() == ["10.244.0.3", "10.244.0.4"]


def test_a_pod_must_match_all_labels_of_a_selector():
    cluster = Cluster()
    both = Service(ServiceKey("shop", "web"), (), selector=(("app", "web"), ("tier", "back")))
    cluster.pods.put_service(both, TO_8080)
    cluster.pods.put_pod(pod())
    assert cluster.ips() == []


def test_a_deleted_or_relabelled_pod_is_not_an_endpoint(cluster):
    cluster.pods.put_pod(pod())
    cluster.pods.put_pod(pod("web-2", "10.244.0.4"))
    assert cluster.ips() == ["10.244.0.3", "10.244.0.4"]
    cluster.pods.put_pod(pod(app="db"))
    assert cluster.ips() == ["10.244.0.4"]
    cluster.pods.delete_pod(PodKey("shop", "web-2"))
    cluster.pods.delete_pod(PodKey("shop", "web-2"))
    assert cluster.ips() == []


def test_slices_of_a_service_with_a_selector_are_ignored(cluster):
    cluster.pods.put_pod(pod())
    cluster.pods.put_slice(written())
    assert cluster.ips() == ["10.244.0.3"]


def test_a_service_without_a_selector_keeps_its_slices(cluster):
    cluster.pods.put_pod(pod())
    cluster.pods.put_slice(written())
    cluster.pods.put_service(service(app=""), TO_8080)
    assert cluster.ips() == ["192.0.2.7"]
    cluster.pods.put_slice(written("192.0.2.8"))
    assert cluster.ips() == ["192.0.2.8"]
    cluster.pods.delete_slice(written().key)
    cluster.pods.delete_slice(written().key)
    assert cluster.ips() == []


def test_a_slice_can_be_relabelled_for_another_service():
    cluster = Cluster()
    for name in ("a", "b"):
        cluster.pods.put_service(service(name, app=""), TO_8080)
    cluster.pods.put_slice(written(of="b"))
    assert (cluster.ips("a"), cluster.ips("b")) == ([], ["192.0.2.7"])
    cluster.pods.put_slice(written(of="a"))
    assert (cluster.ips("a"), cluster.ips("b")) == (["192.0.2.7"], [])
    cluster.pods.put_slice(written(of="b"))
    assert (cluster.ips("a"), cluster.ips("b")) == ([], ["192.0.2.7"])
    cluster.pods.delete_slice(written().key)
    cluster.pods.put_service(service("b", app=""), TO_8080)
    assert (cluster.ips("a"), cluster.ips("b")) == ([], [])


def test_a_deleted_service_and_its_deleted_pod_leave_no_state(cluster):
    cluster.pods.put_pod(pod())
    assert cluster.ips() == ["10.244.0.3"]
    cluster.pods.delete_service(ServiceKey("shop", "web"))
    cluster.pods.delete_pod(pod().key)
    cluster.pods.settle()
    snapshot = cluster.store.snapshot()
    assert (dict(snapshot.services), dict(snapshot.orphans)) == ({}, {})
    tables = [each for each in vars(cluster.pods).values() if isinstance(each, (dict, set))]
    assert not any(tables)


@pytest.mark.parametrize(("with_headless", "ips"), [(False, []), (True, ["10.244.0.3"])])
def test_headless_services_get_endpoints_only_for_dns(with_headless, ips):
    cluster = Cluster(with_headless=with_headless)
    cluster.pods.put_service(service(is_headless=True), TO_8080)
    cluster.pods.put_pod(pod())
    assert cluster.ips() == ips


def test_a_pod_change_keeps_the_objects_of_other_services(cluster):
    cluster.pods.put_service(service("db", app="db"), TO_8080)
    cluster.pods.settle()
    before = cluster.store.snapshot()
    cluster.pods.put_pod(pod())
    cluster.pods.settle()
    after = cluster.store.snapshot()
    assert after.services[ServiceKey("shop", "db")] is before.services[ServiceKey("shop", "db")]
    cluster.pods.put_pod(pod())
    cluster.pods.settle()
    assert cluster.store.snapshot() is after


def resumed(cluster: Cluster) -> Cluster:
    """Return a cluster of a later run, which resumes from this run's saved objects."""
    cluster.pods.settle()
    old = cluster.store.snapshot()
    again = Cluster()
    again.store.resume(old)
    again.pods.resume(old)
    return again


def test_endpoints_of_a_previous_run_are_replaced_by_the_current_pods(cluster):
    cluster.pods.put_pod(pod())
    again = resumed(cluster)
    again.pods.put_service(service(), TO_8080)
    again.pods.put_pod(pod("web-2", "10.244.0.4"))
    assert again.ips() == ["10.244.0.4"]


def test_after_a_restart_an_unreadable_service_keeps_its_endpoints(cluster):
    cluster.pods.put_pod(pod())
    again = resumed(cluster)
    # In the later run, the Service object is unreadable and isn't added to the store.
    again.pods.put_pod(pod())
    assert again.ips() == ["10.244.0.3"]
    again.pods.put_service(service(), TO_8080)
    again.pods.put_pod(pod("web-2", "10.244.0.4"))
    assert again.ips() == ["10.244.0.3", "10.244.0.4"]


NAMES = st.sampled_from(["web", "db"])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("pod"), st.sampled_from("abc"), NAMES),
        st.tuples(st.just("no pod"), st.sampled_from("abc"), st.just("")),
        st.tuples(st.just("service"), NAMES, st.sampled_from(["web", "db", ""])),
        st.tuples(st.just("no service"), NAMES, st.just("")),
        st.tuples(st.just("slice"), st.sampled_from("xy"), NAMES),
        st.tuples(st.just("no slice"), st.sampled_from("xy"), st.just("")),
        st.tuples(st.just("settle"), st.just(""), st.just("")),
    ),
    max_size=20,
)


@given(CHANGES)
def test_the_store_does_not_depend_on_the_order_of_changes(changes):
    step, last = Cluster(), {}
    for what, name, value in changes:
        kind = what.removeprefix("no ")
        if what == "settle":
            step.pods.settle()
            continue
        _apply(step, what, name, value)
        last[kind, name] = (what, name, value)
    fresh = Cluster()
    for what, name, value in last.values():
        _apply(fresh, what, name, value)
    step.pods.settle()
    fresh.pods.settle()
    assert step.store.snapshot() == fresh.store.snapshot()


def _apply(cluster, what, name, value):
    match what:
        case "pod":
            cluster.pods.put_pod(pod(name, f"10.244.0.{ord(name)}", app=value))
        case "no pod":
            cluster.pods.delete_pod(PodKey("shop", name))
        case "service":
            cluster.pods.put_service(service(name, app=value), TO_8080)
        case "no service":
            cluster.pods.delete_service(ServiceKey("shop", name))
        case "slice":
            cluster.pods.put_slice(written(name=name, of=value))
        case "no slice":
            cluster.pods.delete_slice(SliceKey("shop", name))


def test_the_pods_of_a_namespaces_services_are_bounded(monkeypatch):
    """A patch of one of 2,000 Pods of 200 Services once blocked the event loop for 1.7 s."""
    monkeypatch.setattr(from_pods, "PODS_MAX", 3)
    cluster = Cluster()
    for name, app in (("web", "web"), ("again", "web"), ("db", "db")):
        cluster.pods.put_service(service(name, app), TO_8080)
    for number in (1, 2):
        cluster.pods.put_pod(pod(f"web-{number}", f"10.244.0.{number}"))
    cluster.pods.put_pod(pod("db-1", "10.244.0.9", app="db"))
    assert cluster.ips("db") == ["10.244.0.9"]
    assert cluster.ips("again") == ["10.244.0.1", "10.244.0.2"]
    assert cluster.ips("web") == []
    (left_out,) = cluster.store.snapshot().services[ServiceKey("shop", "web")].slices
    assert left_out.notes == (NoteKind.TOO_MANY_PODS(3),)
    cluster.pods.delete_service(ServiceKey("shop", "again"))
    assert cluster.ips("web") == ["10.244.0.1", "10.244.0.2"]
