"""Tests of updating indexes of namespaces and addresses by snapshot differences."""

import random

from tests.unit.model.samples import service, slice_of
from userspace_proxy.cluster import Store
from userspace_proxy.model import Endpoint, ServiceKey, SliceKey
from userspace_proxy.names import NameIndex, index

WEB, DB = ServiceKey("shop", "web"), ServiceKey("shop", "db")


def test_a_namespace_exists_while_it_contains_a_service():
    store, names = Store(), NameIndex()
    empty = store.snapshot()
    store.put_service(service(WEB))
    store.put_service(service(DB))
    two = store.snapshot()
    store.delete_service(WEB)
    one = store.snapshot()
    store.delete_service(DB)
    snapshots = [empty, two, one, store.snapshot(), two]
    assert [names.has_namespace(s, "shop") for s in snapshots] == [False, True, True, False, True]


def test_a_services_index_is_rebuilt_when_the_service_changes():
    store, names = Store(), NameIndex()
    store.put_service(service(WEB))
    first = store.snapshot()
    store.put_service(service(DB))
    second = store.snapshot()
    store.put_slice(slice_of("10.0.0.1", of=WEB))
    third = store.snapshot()
    of_first = names.of_service(first, WEB)
    assert names.of_service(first, WEB) is names.of_service(second, WEB) is of_first
    assert names.of_service(third, WEB).state is third.services[WEB]
    assert names.of_service(first, DB) is None


def test_an_address_maps_to_the_names_of_its_service_or_endpoints():
    store, names = Store(), NameIndex()
    store.put_service(service(WEB, cluster_ips=("10.96.0.1", "10.0.0.2")))
    endpoints = Endpoint("10.0.0.1", hostname="web-0"), Endpoint("10.0.0.3", ready=False)
    store.put_slice(slice_of(*endpoints, "10.0.0.2", of=WEB))
    store.put_service(service(DB, cluster_ips=("10.96.0.1",)))
    store.put_slice(slice_of("10.0.0.1", key="db-1", of=DB))
    store.put_slice(slice_of("10.0.0.1", key="db-2", of=DB))
    found = {ip: names.names_of(store.snapshot(), ip) for ip in ("10.0.0.2", "10.0.0.3")}
    assert found == {"10.0.0.2": ["web.shop"], "10.0.0.3": []}
    assert names.names_of(store.snapshot(), "10.96.0.1") == ["web.shop"]
    both = {"web-0.web.shop", "10-0-0-1.db.shop"}
    assert set(names.names_of(store.snapshot(), "10.0.0.1")) == both
    store.delete_slice(SliceKey("shop", "db-1"))
    assert set(names.names_of(store.snapshot(), "10.0.0.1")) == both
    store.delete_slice(SliceKey("shop", "db-2"))
    assert names.names_of(store.snapshot(), "10.0.0.1") == ["web-0.web.shop"]


def test_addresses_have_the_same_names_as_in_a_new_index_after_any_changes():
    rng, store, names = random.Random(1), Store(), NameIndex()
    snapshots = []
    for _ in range(200):
        key = ServiceKey("shop", f"s{rng.randrange(3)}")
        name = f"{key.name}-{rng.randrange(3)}"
        match rng.randrange(4):
            case 0:
                store.put_service(service(key, cluster_ips=(f"10.0.0.{rng.randrange(6)}",)))
            case 1:
                store.delete_service(key)
            case 2:
                store.delete_slice(SliceKey("shop", name))
            case _:
                ips = {f"10.0.0.{rng.randrange(6)}" for _ in range(3)}
                endpoints = [Endpoint(ip, ready=rng.random() < 0.8) for ip in sorted(ips)]
                store.put_slice(slice_of(*endpoints, key=name, of=key))
        snapshots.append(store.snapshot())
    rng.shuffle(snapshots)
    for snapshot in snapshots:
        fresh = NameIndex()
        for i in range(6):
            ip = f"10.0.0.{i}"
            assert set(names.names_of(snapshot, ip)) == set(fresh.names_of(snapshot, ip))


def test_a_changed_slice_is_indexed_without_reading_other_slices(monkeypatch):
    looked_at, original = [], index._names

    def names_in(item, behind):
        found = list(original(item, behind))
        looked_at.extend(found)
        return found

    monkeypatch.setattr(index, "_names", names_in)
    store, names = Store(), NameIndex()
    store.put_service(service(WEB))
    for s in range(10):
        store.put_slice(slice_of(*(f"10.0.{s}.{i}" for i in range(50)), key=f"s{s}", of=WEB))
    names.names_of(store.snapshot(), "10.0.0.1")
    assert len(looked_at) == 500
    store.put_slice(slice_of("10.0.0.1", key="s0", of=WEB))
    assert names.names_of(store.snapshot(), "10.0.0.1") == ["10-0-0-1.web.shop"]
    assert names.names_of(store.snapshot(), "10.0.0.2") == []
    assert len(looked_at) == 500 + 50 + 1


def test_prepare_builds_slow_indexes_before_a_query():
    store = Store()
    store.put_service(service())
    many = [f"10.{n >> 8}.{n & 255}.7" for n in range(3 * index.AT_ONCE)]
    parts = [many[n : n + 500] for n in range(0, len(many), 500)]
    for number, ips in enumerate(parts):
        store.put_slice(slice_of(*ips, key=f"cart-{number}"))
    names, snapshot = NameIndex(), store.snapshot()
    assert not names.has_addresses(snapshot)
    names.prepare(snapshot)
    assert names.has_addresses(snapshot)
    (key,) = snapshot.services
    of_service = names.of_service(snapshot, key)
    assert not of_service.is_ready("", "", "")
    names.prepare(snapshot, key)
    assert of_service.is_ready("", "", "")
    names.prepare(snapshot, ServiceKey("shop", "missing"))
