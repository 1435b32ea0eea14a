"""Snapshots as values."""

from userspace_proxy.cluster import ServiceState, Snapshot
from userspace_proxy.model import Node

from ..model.samples import CART, service, slice_of


def test_snapshots_of_equal_states_are_equal_despite_different_revisions():
    first = Snapshot({CART: ServiceState(service(), (slice_of("192.0.2.1"),))}, revision=1)
    second = Snapshot({CART: ServiceState(service(), (slice_of("192.0.2.1"),))}, revision=9)
    assert first == second


def test_snapshots_of_different_states_differ():
    state = ServiceState(service(), (slice_of("192.0.2.1"),))
    assert Snapshot({CART: state}) != Snapshot({})
    assert Snapshot({CART: state}) != Snapshot({CART: ServiceState(service(), ())})
    assert Snapshot({}, Node("node-1")) != Snapshot({})
