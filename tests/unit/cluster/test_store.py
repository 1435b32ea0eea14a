"""Tests of the store, which creates a snapshot for each change of a source."""

import copy
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.cluster import ServiceState, Slices, Snapshot, Store
from userspace_proxy.cluster.store import count_new, differing_slices
from userspace_proxy.model import Node, SliceKey

from ..model.samples import CART, WEB, WEB_IP, service, slice_of

CART_SERVICE = service()
WEB_SERVICE = service(WEB, cluster_ips=(WEB_IP,))
CART_SLICE = slice_of("192.0.2.1")
ORPHAN = slice_of("192.0.2.9", key="bank-1", of=WEB._replace(name="x"))
WEB_SLICE = slice_of("192.0.2.2", key="web-1", of=WEB)
MISSING = SliceKey("shop", "missing")


@pytest.fixture
def store():
    store = Store()
    store.replace_services([CART_SERVICE, WEB_SERVICE])
    store.replace_slices([CART_SLICE, WEB_SLICE])
    store.set_node(Node("node-1"))
    return store


def test_a_snapshot_contains_each_service_with_its_slices_and_the_node(store):
    assert store.node == Node("node-1")
    snapshot = store.snapshot()
    assert snapshot.services == {
        CART: ServiceState(CART_SERVICE, (CART_SLICE,)),
        WEB: ServiceState(WEB_SERVICE, (WEB_SLICE,)),
    }
    assert (snapshot.node, snapshot.revision) == (Node("node-1"), 1)


def test_uid_of_returns_the_uid_of_a_service():
    store = Store()
    store.put_service(service(uid="4711"))
    assert (store.uid_of(CART), store.uid_of(WEB)) == ("4711", "")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: None, id="no-change"),
        pytest.param(lambda s: s.put_service(copy.deepcopy(CART_SERVICE)), id="equal-service"),
        pytest.param(lambda s: s.put_slice(copy.deepcopy(CART_SLICE)), id="equal-slice"),
        pytest.param(lambda s: s.set_node(Node("node-1")), id="equal-node"),
        pytest.param(
            lambda s: s.replace_services(copy.deepcopy([WEB_SERVICE, CART_SERVICE])),
            id="relist-of-services",
        ),
        pytest.param(
            lambda s: s.replace_slices(copy.deepcopy([WEB_SLICE, CART_SLICE])),
            id="relist-of-slices",
        ),
        pytest.param(lambda s: s.delete_service(WEB._replace(name="x")), id="unknown-service"),
        pytest.param(lambda s: s.delete_slice(MISSING), id="unknown-slice"),
        pytest.param(
            lambda s: (s.delete_service(CART), s.put_service(CART_SERVICE)), id="service-recreated"
        ),
        pytest.param(
            lambda s: (s.delete_slice(CART_SLICE.key), s.put_slice(CART_SLICE)),
            id="slice-recreated",
        ),
        pytest.param(lambda s: (s.set_node(None), s.set_node(Node("node-1"))), id="node-restored"),
        pytest.param(
            lambda s: (s.put_slice(ORPHAN), s.delete_slice(ORPHAN.key)), id="orphan-deleted"
        ),
    ],
)
def test_equal_objects_cause_no_new_snapshot(store, change):
    before = store.snapshot()
    change(store)
    assert store.snapshot() is before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda s: s.put_service(dataclasses.replace(CART_SERVICE, affinity_timeout_s=60)),
            ServiceState(dataclasses.replace(CART_SERVICE, affinity_timeout_s=60), (CART_SLICE,)),
            id="service-changed",
        ),
        pytest.param(
            lambda s: s.put_slice(slice_of("192.0.2.3")),
            ServiceState(CART_SERVICE, (slice_of("192.0.2.3"),)),
            id="slice-changed",
        ),
        pytest.param(
            lambda s: s.delete_slice(CART_SLICE.key),
            ServiceState(CART_SERVICE, ()),
            id="slice-deleted",
        ),
        pytest.param(
            lambda s: s.replace_slices([WEB_SLICE]),
            ServiceState(CART_SERVICE, ()),
            id="slice-gone-from-the-list",
        ),
        pytest.param(lambda s: s.delete_service(CART), None, id="service-deleted"),
        pytest.param(
            lambda s: s.replace_services([WEB_SERVICE]), None, id="service-gone-from-the-list"
        ),
    ],
)
def test_a_change_keeps_the_objects_of_other_services(store, change, expected):
    before = store.snapshot()
    change(store)
    after = store.snapshot()
    assert after.services.get(CART) == expected
    assert after.services[WEB] is before.services[WEB]
    assert after.revision == before.revision + 1


def test_node_addresses_of_an_earlier_run_are_used_until_replaced():
    nodes = frozenset({"192.0.2.1"})
    store = Store()
    assert store.snapshot().node_addresses is None
    store.resume(Snapshot({}, node_addresses=nodes))
    assert store.snapshot().node_addresses == nodes
    store.set_node_addresses(None)
    assert store.snapshot().node_addresses is None


def test_an_unchanged_object_in_a_list_stays_the_same_object(store):
    store.put_slice(slice_of("192.0.2.3", key="cart-2"))
    before = store.snapshot().services[CART].slices
    store.replace_slices(copy.deepcopy([WEB_SLICE, CART_SLICE, slice_of(key="cart-2")]))
    after = store.snapshot().services[CART].slices
    assert [new is old for new, old in zip(after, before, strict=True)] == [True, False]


def test_a_slice_relabelled_for_another_service_is_removed_from_the_old_service(store):
    store.put_slice(slice_of("192.0.2.1", of=WEB))
    services = store.snapshot().services
    assert services[CART].slices == ()
    assert [item.key.name for item in services[WEB].slices] == ["cart-1", "web-1"]


def test_slices_without_a_service_are_indexed_by_the_named_service(store):
    first = store.snapshot()
    store.put_slice(ORPHAN)
    orphaned = store.snapshot()
    assert orphaned.orphans == {ORPHAN.service: (ORPHAN,)}
    assert (orphaned.services, orphaned.revision) == (first.services, first.revision + 1)
    store.put_service(service(ORPHAN.service))
    assert store.snapshot().orphans == {}
    store.delete_service(ORPHAN.service)
    assert store.snapshot().orphans == {ORPHAN.service: (ORPHAN,)}
    store.delete_slice(ORPHAN.key)
    assert store.snapshot().orphans == {}


def test_a_returned_snapshot_never_changes(store):
    before = store.snapshot()
    kept = copy.deepcopy(before)
    store.replace_services([])
    store.replace_slices([])
    store.set_node(None)
    store.snapshot()
    assert before == kept


KEYS = st.sampled_from([CART, WEB])
SERVICES = st.builds(
    service, KEYS, affinity_timeout_s=st.sampled_from([None, 60]), created=st.sampled_from("ab")
)
SLICES = st.builds(
    lambda of, name, ips: slice_of(*ips, of=of, key=name),
    KEYS,
    st.sampled_from(["a", "b"]),
    st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2"]), max_size=2),
)
NODES = st.sampled_from([None, Node("node-1"), Node("node-2")])
OPERATIONS = st.one_of(
    st.tuples(st.just("put_service"), SERVICES),
    st.tuples(st.just("delete_service"), KEYS),
    st.tuples(st.just("replace_services"), st.lists(SERVICES, max_size=3)),
    st.tuples(st.just("put_slice"), SLICES),
    st.tuples(st.just("delete_slice"), SLICES.map(lambda item: item.key)),
    st.tuples(st.just("replace_slices"), st.lists(SLICES, max_size=3)),
    st.tuples(st.just("set_node"), NODES),
    st.tuples(st.just("snapshot")),
)


def change(state, name, value):
    """Apply a change to a model of the store: a list of two dicts and the node."""
    services, slices, _ = state
    kept = {"service": services, "slice": slices}.get(name.rpartition("_")[2].removesuffix("s"))
    if name == "set_node":
        state[2] = value
    elif name.startswith("replace"):
        kept.clear()
        kept.update({item.key: item for item in value})
    elif name.startswith("put"):
        kept[value.key] = value
    else:
        kept.pop(value, None)


def store_from_scratch(services, slices, node):
    store = Store()
    store.replace_services(services.values())
    store.replace_slices(slices.values())
    store.set_node(node)
    return store


def comparable(snapshot):
    """Return a snapshot without orphaned slices, whose contents may be outdated, and their keys."""
    keys = {key: [item.key for item in items] for key, items in snapshot.orphans.items()}
    return dataclasses.replace(snapshot, orphans={}), keys


@given(st.lists(OPERATIONS, max_size=25))
def test_incremental_changes_give_the_same_snapshot_as_a_new_store(operations):
    store, expected, last = Store(), [{}, {}, None], Store().snapshot()
    for name, *values in [*operations, ("snapshot",)]:
        result = getattr(store, name)(*values)
        if name != "snapshot":
            change(expected, name, *values)
            continue
        assert comparable(result) == comparable(store_from_scratch(*expected).snapshot())
        assert (result.revision == last.revision) == (result == last)
        for key, state in result.services.items():
            assert (state == last.services.get(key)) == (state is last.services.get(key))
        last = result


def test_unchanged_objects_of_a_previous_run_keep_their_identity(store):
    earlier = store.snapshot()
    resumed = Store()
    resumed.resume(earlier)
    resumed.replace_services([copy.copy(WEB_SERVICE)])
    resumed.replace_slices([copy.copy(WEB_SLICE)])
    snapshot = resumed.snapshot()
    assert snapshot.services == {WEB: earlier.services[WEB]}
    assert snapshot.services[WEB] is earlier.services[WEB]
    assert snapshot.node is None


def test_differing_slices_returns_the_slices_that_changed():
    one, two = slice_of("10.0.0.1"), slice_of("10.0.0.1", "10.0.0.2")
    before, after = (ServiceState(service(), Slices([item])) for item in (one, two))
    assert list(differing_slices(before, after)) == [(one, two)]
    assert list(differing_slices(None, after)) == [(None, two)]
    assert list(differing_slices(before, None)) == [(one, None)]
    assert count_new(before, None) == 0
    assert count_new(None, after) > count_new(None, before) > 0
