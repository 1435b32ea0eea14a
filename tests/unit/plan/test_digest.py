"""Tests that the digest of a Service depends only on facts that all nodes share."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.cluster import PersistentMap, ServiceState, Slices, Store
from userspace_proxy.cluster.encoding import StateOwner, decode_state, encode_state
from userspace_proxy.model import (
    Balance,
    DataPath,
    Endpoint,
    EndpointSlice,
    Handling,
    Hold,
    IPFamily,
    ProxyProtocol,
    Service,
    ServiceKey,
    ServicePort,
    ServiceType,
    SliceKey,
    SlicePort,
)
from userspace_proxy.model.handling import Workload, WorkloadKind
from userspace_proxy.plan import digest as plan_digest
from userspace_proxy.plan.digest import (
    BUCKETS,
    Digests,
    bucket_of,
    digest_of,
    digests_of,
    summary_of,
)

from .drawn import SERVICES, SLICES

WEB = ServiceKey("shop", "web")
SERVICE = Service(
    WEB, (ServicePort("http", 80, "TCP", 30_080),), cluster_ips=("10.96.0.1",), uid="1"
)
FIRST, SECOND = Endpoint("10.244.1.2"), Endpoint("10.244.2.3")


def a_slice(*endpoints, name="web-1", port=8080):
    ports = (SlicePort("http", port, "TCP"),)
    return EndpointSlice(SliceKey("shop", name), WEB, IPFamily.IPV4, ports, endpoints)


def digest(service=SERVICE, *slices):
    return digest_of(ServiceState(service, slices or (a_slice(FIRST, SECOND),)))


def test_the_digest_of_a_service_equals_the_recorded_digest_of_this_form():
    """If this fails, raise FORM, because other versions of the agent compute other digests."""
    assert digest() == "f6dbfe59"
    asked = replace(SERVICE, handling=Handling(max_connections=5), affinity_timeout_s=60)
    assert digest(asked) == "9d741a82"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"ports": (ServicePort("http", 81, "TCP", 30_080),)}, id="port"),
        pytest.param({"ports": (ServicePort("http", 80, "UDP", 30_080),)}, id="protocol"),
        pytest.param({"ports": (ServicePort("http", 80, "TCP", 30_081),)}, id="node-port"),
        pytest.param({"cluster_ips": ("10.96.0.2",)}, id="cluster-ip"),
        pytest.param({"external_ips": ("198.51.100.1",)}, id="external-ip"),
        pytest.param({"load_balancer_ips": ("198.51.100.1",)}, id="load-balancer-ip"),
        pytest.param({"load_balancer_source_ranges": ("10.0.0.0/8",)}, id="source-range"),
        pytest.param({"affinity_timeout_s": 60}, id="affinity"),
        pytest.param({"is_internal_local": True}, id="policy"),
        pytest.param({"proxy_name": "other"}, id="another-proxys"),
        pytest.param({"handling": Handling(max_connections=5)}, id="annotation"),
    ],
)
def test_fields_affecting_traffic_change_the_digest(changes):
    assert digest(replace(SERVICE, **changes)) != digest()


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param(replace(FIRST, ip="10.244.1.9"), id="address"),
        pytest.param(replace(FIRST, ready=False), id="ready"),
        pytest.param(replace(FIRST, serving=False), id="serving"),
        pytest.param(replace(FIRST, terminating=True), id="terminating"),
        pytest.param(replace(FIRST, weight=5), id="weight"),
        pytest.param(replace(FIRST, priority=1), id="priority"),
    ],
)
def test_endpoints_and_their_conditions_change_the_digest(endpoint):
    assert digest(SERVICE, a_slice(endpoint, SECOND)) != digest()


def test_the_endpoint_port_changes_the_digest():
    assert digest(SERVICE, a_slice(FIRST, SECOND, port=8081)) != digest()


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param(replace(FIRST, node="node-a"), id="node"),
        pytest.param(replace(FIRST, hinted_zones=("a",), hinted_nodes=("b",)), id="hints"),
        pytest.param(replace(FIRST, pod="web-x", hostname="web-x"), id="names"),
    ],
)
def test_topology_and_node_specific_inputs_do_not_change_the_digest(endpoint):
    assert digest(SERVICE, a_slice(endpoint, SECOND)) == digest()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"uid": "2", "created": "2026-01-01T00:00:00Z"}, id="identity"),
        pytest.param({"selector": (("app", "web"),)}, id="selector"),
        pytest.param({"handling": Handling(found_by_name=("192.0.2.7",), seed=7)}, id="dns"),
    ],
)
def test_fields_not_affecting_traffic_do_not_change_the_digest(changes):
    assert digest(replace(SERVICE, **changes)) == digest()


@pytest.mark.parametrize(
    ("asked", "read_again"),
    [
        (Handling(hold=Hold(60, 16)), Handling(hold=Hold(60.0, 16))),
        (Handling(slow_start_s=5), Handling(slow_start_s=5.0)),
    ],
)
def test_numerically_equal_objects_have_equal_digests(asked, read_again):
    assert asked == read_again
    assert digest(replace(SERVICE, handling=asked)) == digest(replace(SERVICE, handling=read_again))


@pytest.mark.parametrize(
    "asked",
    [
        Handling(balance=Balance.RANDOM),
        Handling(hold=Hold(60.0)),
        Handling(hold=Hold(60.0, 5)),
        Handling(keeps_clients=False),
        Handling(path=DataPath.KERNEL),
        Handling(proxy_protocol=ProxyProtocol.V2),
        Handling(wake=Workload(WorkloadKind.DEPLOYMENT, "web")),
        Handling(removal_s=0.0),
    ],
    ids=str,
)
def test_each_handling_from_annotations_changes_the_digest(asked):
    others = [Handling(), Handling(hold=Hold(61.0)), Handling(balance=Balance.SOURCE_HASH)]
    assert digest(replace(SERVICE, handling=asked)) not in {
        digest(replace(SERVICE, handling=other)) for other in others
    }


@given(st.lists(SERVICES, unique_by=lambda one: one.key), st.lists(SLICES))
def test_a_saved_and_reloaded_state_has_equal_digests(services, slices):
    store = Store()
    store.replace_services(services)
    store.replace_slices(slices)
    snapshot = store.snapshot()
    owner = StateOwner("kubernetes", "https://192.0.2.10:6443", "node-1", "")
    again = decode_state(encode_state(snapshot, owner), owner)
    assert digests_of(again.services) == digests_of(snapshot.services)


def test_distributing_endpoints_over_other_slices_does_not_change_the_digest():
    together = digest(SERVICE, a_slice(FIRST, SECOND))
    apart = digest(SERVICE, a_slice(SECOND, name="web-a"), a_slice(FIRST, name="web-b"))
    moving = digest(SERVICE, a_slice(FIRST, SECOND), a_slice(FIRST, name="web-2"))
    assert together == apart == moving


def test_endpoints_resolved_by_name_do_not_change_the_digest():
    found = a_slice(Endpoint("203.0.113.9", host="db.example.com"), name="by-name")
    assert digest(SERVICE, a_slice(FIRST, SECOND), found) == digest()


def test_slices_of_headless_services_do_not_change_the_digest():
    headless = replace(a_slice(Endpoint("10.244.9.9"), name="headless"), is_headless=True)
    assert digest(SERVICE, a_slice(FIRST, SECOND), headless) == digest()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"is_headless": True}, id="headless"),
        pytest.param({"has_headless_label": True}, id="headless-label"),
        pytest.param({"type": ServiceType.EXTERNAL_NAME}, id="external-name"),
    ],
)
def test_services_served_by_no_proxy_have_no_digest(changes):
    state = ServiceState(replace(SERVICE, **changes), ())
    assert digest_of(state) == ""
    assert digests_of({WEB: state}) == {}


def snapshot_of(*names, **changes):
    services = {}
    for name in names:
        key = ServiceKey("shop", name)
        services[key] = ServiceState(replace(SERVICE, key=key, **changes), ())
    return PersistentMap().changed(services)


def test_equal_services_with_different_names_have_different_digests():
    assert len(set(digests_of(snapshot_of("web", "cart")).values())) == 2


def test_incrementally_updated_digests_equal_newly_computed_digests():
    digests, services = Digests(), snapshot_of(*(f"service-{n}" for n in range(200)))
    digests.follow(services)
    for changed, gone in (
        (snapshot_of("service-3", affinity_timeout_s=5), ()),
        (snapshot_of("service-4", is_headless=True), ()),
        ({}, [ServiceKey("shop", "service-9")]),
        (snapshot_of("service-4"), ()),
    ):
        services = services.changed(changed, gone)
        digests.follow(services)
        fresh = digests_of(services)
        assert digests.summary == summary_of(fresh)
        assert {name: one for bucket in digests.buckets for name, one in bucket.items()} == fresh


def test_a_change_affects_only_the_bucket_of_its_service():
    digests, services = Digests(), snapshot_of(*(f"service-{n}" for n in range(200)))
    digests.follow(services)
    buckets, (digest, sums) = digests.buckets, digests.summary
    digests.follow(services.changed(snapshot_of("service-3", affinity_timeout_s=5)))
    number = bucket_of("shop/service-3")
    assert digests.summary[0] != digest
    assert [at for at in range(BUCKETS) if digests.summary[1][at] != sums[at]] == [number]
    assert [at for at in range(BUCKETS) if digests.buckets[at] is not buckets[at]] == [number]


def test_a_change_irrelevant_to_nodes_keeps_all_buckets():
    digests, services = Digests(), snapshot_of("web", "cart")
    digests.follow(services)
    buckets, summary = digests.buckets, digests.summary
    digests.follow(services.changed(snapshot_of("web", uid="2")))
    assert (digests.buckets, digests.summary) == (buckets, summary)
    assert all(now is then for now, then in zip(digests.buckets, buckets, strict=True))


def test_all_services_of_a_bucket_may_be_replaced_together():
    names = [f"service-{n}" for n in range(1000) if bucket_of(f"shop/service-{n}") == 7]
    digests = Digests()
    for present in (names[:2], names[2:9], ()):
        digests.follow(snapshot_of(*present))
        assert digests.summary == summary_of(digests_of(snapshot_of(*present)))


def test_a_change_rereads_only_a_part_of_many_slices(monkeypatch):
    ips = [f"10.0.{i >> 8}.{i & 255}" for i in range(900)]
    many = [a_slice(Endpoint(ip), name=f"s{i:04}") for i, ip in enumerate(ips)]
    before, read = Slices.of(many), []
    assert digest(SERVICE, *many) == digest_of(ServiceState(SERVICE, before))
    monkeypatch.setattr(plan_digest, "_in_words", lambda one: read.append(one) or one.ip)
    changed = a_slice(SECOND, name="s0450")
    digest_of(ServiceState(SERVICE, before.changed({changed.key: changed})))
    assert len(read) <= 256
