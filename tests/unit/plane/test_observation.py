import asyncio
from dataclasses import replace

import pytest

from userspace_proxy.cluster import Store
from userspace_proxy.facts.connection import ConnectionFacts, ConnectionFilter
from userspace_proxy.model import Endpoint, EndpointSlice, IPFamily, Node, ServiceKey, SliceKey
from userspace_proxy.model.endpoints import CONTROLLER
from userspace_proxy.plane.messages import Observed
from userspace_proxy.plane.observation import Observation, PodNames
from userspace_proxy.status.observing import Observing, Watcher

from ..agent.samples import service
from ..dataplane.rig import UNREACHABLE, Rig
from ..dataplane.waiting import until

WEB = ServiceKey("shop", "web")


def put(store, *pods, name="web", namespace="shop", node="node-1", created="", is_managed=True):
    """Put a Service with these endpoints, each an address and a pod; return the snapshot."""
    endpoints = tuple(Endpoint(ip, pod=pod, node=node) for ip, pod in pods)
    key = ServiceKey(namespace, name)
    store.put_service(replace(service(name, "10.96.0.1"), key=key, created=created))
    family = IPFamily.IPV4
    item = EndpointSlice(
        SliceKey(*key), key, family, (), endpoints, manager=CONTROLLER * is_managed
    )
    store.put_slice(item)
    return store.snapshot()


def test_the_pod_of_an_address_is_the_target_named_in_its_slice():
    store, names = Store(), PodNames()
    snapshot = put(store, ("10.244.0.7", "web-7"), ("10.244.0.8", ""))
    assert names.of(snapshot, "10.244.0.7") == "shop/web-7"
    assert names.of(snapshot, "10.244.0.8") == ""
    assert names.of(snapshot, "10.244.0.9") == ""


def test_the_pod_name_of_an_address_follows_changes_of_slices():
    store, names = Store(), PodNames()
    names.of(put(store, ("10.244.0.7", "web-7")), "10.244.0.7")
    put(store, ("10.244.0.7", "web-7"), name="api")
    snapshot = put(store, ("10.244.0.7", "web-8"))
    # If two pods have one address, neither can be identified as the client.
    assert names.of(snapshot, "10.244.0.7") == ""
    store.delete_service(ServiceKey("shop", "api"))
    assert names.of(store.snapshot(), "10.244.0.7") == "shop/web-8"
    store.delete_service(WEB)
    assert names.of(store.snapshot(), "10.244.0.7") == ""


def test_a_nodes_address_is_attributed_to_no_pod():
    snapshot = put(Store(), ("192.0.2.1", "web-7"))
    own = replace(snapshot, node=Node("node-1", addresses=("192.0.2.1",)))
    others = replace(snapshot, node_addresses=frozenset({"192.0.2.1"}))
    assert [PodNames().of(one, "192.0.2.1") for one in (snapshot, own, others)] == [
        "shop/web-7",
        "",
        "",
    ]


def test_pods_on_other_nodes_are_not_named():
    store, names = Store(), PodNames("node-1")
    on = {"10.244.0.7": "node-1", "10.244.0.8": "node-2", "10.244.0.9": ""}
    endpoints = tuple(Endpoint(ip, node=node, pod=f"web-{ip[-1]}") for ip, node in on.items())
    store.put_service(service("web", "10.96.0.1"))
    store.put_slice(EndpointSlice(SliceKey(*WEB), WEB, IPFamily.IPV4, (), endpoints))
    snapshot = store.snapshot()
    listed = " (listed by shop)"
    found = [names.of(snapshot, ip) for ip in on]
    assert found == [f"shop/web-7{listed}", "", f"shop/web-9{listed}"]


ADDRESS = ("10.244.0.7", "payments-0")
FORGED = ("10.244.0.7", "batch-of-evil")


@pytest.mark.parametrize(
    ("evil", "expected"),
    [
        pytest.param({"is_managed": False}, "prod/payments-0", id="by-hand"),
        pytest.param({"node": ""}, "prod/payments-0", id="without-a-node"),
        pytest.param({"created": "2026"}, "prod/payments-0", id="as-a-controller-would"),
    ],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_slices_in_other_namespaces_cannot_replace_or_remove_a_pod_name(evil, expected, is_first):
    store, names = Store(), PodNames()
    put(store, FORGED, namespace="evil", name="a", **evil)
    snapshot = put(store, ADDRESS, namespace="prod", created="2025")
    if not is_first:
        store = Store()
        names.of(put(store, ADDRESS, namespace="prod"), ADDRESS[0])
        snapshot = put(store, FORGED, namespace="evil", name="a", **evil)
    assert names.of(snapshot, ADDRESS[0]) == expected


@pytest.mark.parametrize("how", [{"is_managed": False}, {"node": ""}], ids=["by-hand", "no-node"])
def test_a_pod_name_in_a_slice_without_controller_or_node_name_is_marked(how):
    snapshot = put(Store(), FORGED, namespace="evil", **how)
    assert PodNames().of(snapshot, FORGED[0]) == "evil/batch-of-evil (listed by evil)"


def test_only_changed_slices_of_a_large_service_are_read(monkeypatch):
    store, names, read = Store(), PodNames(), []
    snapshot = put(store, ("10.244.0.7", "web-7"))
    for s in range(50):
        store.put_slice(replace(snapshot.services[WEB].slices[0], key=SliceKey("shop", f"{s}")))
    names.follow(store.snapshot())
    monkeypatch.setattr(names, "_listed", lambda item: read.append(item) or ())
    names.follow(put(store, ("10.244.0.7", "web-8")))
    assert len([item for item in read if item is not None]) == 2


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    rig.close()


async def test_a_watcher_receives_connections_with_the_clients_pod(rig):
    snapshot = put(Store(), ("127.0.0.1", "web-7"))
    observing = Observing()
    observation = Observation(rig.plane, observing, lambda: snapshot)
    task = asyncio.create_task(observation.run())
    web = rig.service(rig.refusing())
    with observing.watch(Watcher(ConnectionFilter(failed=True))) as watcher:
        await until(lambda: rig.engine.connection_log is not None)
        assert await rig.resets_a_client(web)
        (one,) = await watcher.take(30.0)
        assert (one.service, one.client_pod) == ("shop/web:http", "shop/web-7")
    await until(lambda: rig.engine.connection_log is None)
    task.cancel()


async def test_calls_stay_attributed_to_the_pod_that_had_the_address(rig):
    store, observing = Store(), Observing()
    Observation(rig.plane, observing, store.snapshot)
    web = rig.service(rig.refusing())
    for pod in ("web-7", "web-8"):
        put(store, ("127.0.0.1", pod))
        assert await rig.resets_a_client(web)
        await rig.plane.refresh()
    edges = observing.edges(ConnectionFilter()).edges
    assert [(edge.client_pod, edge.connections) for edge in edges] == [
        ("shop/web-7", 1),
        ("shop/web-8", 1),
    ]


async def test_pod_names_are_not_looked_up_without_a_watcher(rig):
    looked_up = []
    Observation(rig.plane, Observing(), lambda: looked_up.append("names"))
    rig.plane.on_observed(Observed([ConnectionFacts(client="10.244.0.7:1")], []))
    assert looked_up == []


async def test_clients_are_counted_without_a_watcher(rig):
    observing = Observing()
    Observation(rig.plane, observing, lambda: None)
    web, dns = rig.service(rig.refusing()), rig.udp_service(UNREACHABLE)
    for _ in range(2):
        assert await rig.resets_a_client(web)
    rig.udp_client(dns).send(b"question")
    await until(lambda: dns.group.counters.refused)
    await rig.plane.refresh()
    (edge,) = observing.edges(ConnectionFilter()).edges
    assert (edge.client, edge.client_pod, edge.connections) == ("127.0.0.1", "", 3)
