"""Tests that judging only the changed endpoints equals judging all, or returns None."""

import operator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.cluster import Store
from userspace_proxy.model import Endpoint, IPFamily, Protocol, SocketAddress
from userspace_proxy.policy import (
    EndpointIndex,
    NodeFacts,
    PortName,
    Refusals,
    usable_after,
    usable_changes,
    usable_endpoints,
)

from ..model.samples import CART, GONE, NOT_READY, READY, TERMINATING, service, slice_of

PORT = PortName(IPFamily.IPV4, "http", Protocol.TCP)
REFUSALS = Refusals(
    NodeFacts(node_name="node-1", zone="east"),
    frontends=[SocketAddress("192.0.2.3", 8080)],
    cluster_ips={"192.0.2.4": CART},
)
IPS = [f"192.0.2.{n}" for n in range(1, 60)]
MANY = [Endpoint(ip) for ip in IPS[10:]]
"""So many endpoints that a few changed endpoints are judged without the others."""


def versions(*rounds):
    """Return an index of a Service's slices for each round."""
    store, found = Store(), []
    store.put_service(service())
    for slices in rounds:
        store.replace_slices(slices)
        found.append(EndpointIndex(store.snapshot().services[CART].slices))
    return found


def judge_changes(had, has, refusals=REFUSALS):
    """Judge the second index by its difference from the first; return None if impossible."""
    before = usable_endpoints(had, PORT, refusals).verdicts
    return usable_after(before, had, has, PORT, refusals)


ENDPOINTS = st.lists(
    st.builds(
        lambda ip, conditions, fields: Endpoint(ip, **conditions, **fields),
        st.sampled_from([*IPS[:12], "127.0.0.1"]),
        st.sampled_from([READY, READY, NOT_READY, TERMINATING, GONE]),
        st.sampled_from([{}] * 6 + [{"weight": 0}, {"priority": 1}, {"hinted_zones": ("east",)}]),
    ),
    max_size=4,
)
OTHERS = st.sampled_from([MANY, [replace(e, hinted_zones=("east",)) for e in MANY], []])


@given(OTHERS, st.lists(ENDPOINTS, min_size=2, max_size=2), st.lists(ENDPOINTS, max_size=2))
def test_judge_changes_returns_none_or_the_result_of_judging_all_endpoints(others, first, second):
    had, has = versions(
        [slice_of(*others, key="z"), *(slice_of(*e, key=f"s{i}") for i, e in enumerate(first))],
        [slice_of(*others, key="z"), *(slice_of(*e, key=f"s{i}") for i, e in enumerate(second))],
    )
    found = judge_changes(had, has)
    assert found in (None, usable_endpoints(has, PORT, REFUSALS))


@given(OTHERS, ENDPOINTS, st.sets(st.sampled_from([*IPS[:12], *IPS[20:23]]), max_size=4))
def test_usable_after_returns_none_or_the_result_of_judging_all_endpoints(others, own, taken):
    (index,) = versions([slice_of(*others, key="z"), slice_of(*own, key="a")])
    refusals = replace(REFUSALS, frontends={SocketAddress(ip, 8080) for ip in taken})
    before = usable_endpoints(index, PORT, REFUSALS).verdicts
    found = usable_after(before, index, index, PORT, refusals, taken | {"192.0.2.3"})
    assert found in (None, usable_endpoints(index, PORT, refusals))


def test_only_the_rejected_address_is_evaluated_again():
    (index,) = versions([slice_of(*MANY, key="z"), slice_of("192.0.2.1", key="a")])
    refusals = replace(REFUSALS, frontends={SocketAddress("192.0.2.1", 8080)})
    before = usable_endpoints(index, PORT, REFUSALS).verdicts
    found = usable_after(before, index, index, PORT, refusals, {"192.0.2.1"})
    assert found == usable_endpoints(index, PORT, refusals)
    assert found.verdicts[1:] == before[1:]
    assert all(map(operator.is_, found.verdicts[1:], before[1:]))


@pytest.mark.parametrize(
    "now",
    [
        pytest.param([Endpoint("192.0.2.1"), Endpoint("192.0.2.9")], id="one-added"),
        pytest.param([], id="one-removed"),
        pytest.param([Endpoint("192.0.2.1", **NOT_READY)], id="one-is-not-ready"),
        pytest.param([Endpoint("192.0.2.1", **TERMINATING)], id="one-terminates"),
        pytest.param([Endpoint("192.0.2.3")], id="one-is-of-this-proxy"),
        pytest.param([Endpoint("192.0.2.4")], id="one-is-a-cluster-ip"),
        pytest.param([Endpoint("127.0.0.1")], id="one-is-loopback"),
    ],
)
def test_a_few_changed_endpoints_are_evaluated_alone(now):
    had, has = versions(
        [slice_of(*MANY, key="z"), slice_of("192.0.2.1", key="a")],
        [slice_of(*MANY, key="z"), slice_of(*now, key="a")],
    )
    before = usable_endpoints(had, PORT, REFUSALS)
    after = usable_after(before.verdicts, had, has, PORT, REFUSALS)
    assert after is not None
    assert after == usable_endpoints(has, PORT, REFUSALS)
    kept = {id(verdict) for verdict in before.verdicts}
    assert sum(id(verdict) not in kept for verdict in after.verdicts) <= len(now)


@pytest.mark.parametrize(
    ("others", "now"),
    [
        pytest.param(MANY, [replace(MANY[0], **NOT_READY)], id="another-slice-has-a-copy"),
        pytest.param(MANY, [Endpoint("192.0.2.1", weight=0)], id="one-is-drained"),
        pytest.param(MANY, [Endpoint("192.0.2.1", priority=1)], id="one-is-on-standby"),
        pytest.param(
            [replace(e, hinted_zones=("west",)) for e in MANY],
            [Endpoint("192.0.2.1", hinted_zones=("east",))],
            id="hints-decide",
        ),
        pytest.param(
            [replace(e, **TERMINATING) for e in MANY], [Endpoint("192.0.2.1")], id="the-first-ready"
        ),
        pytest.param([], [Endpoint("192.0.2.1")], id="all-are-new"),
        pytest.param(
            MANY,
            [Endpoint("192.0.2.1", **NOT_READY), Endpoint("192.0.2.1")],
            id="one-is-listed-twice",
        ),
    ],
)
def test_a_change_affecting_other_endpoints_requires_evaluating_all(others, now):
    had, has = versions(
        [slice_of(*others, key="z")],
        [slice_of(*others, key="z"), slice_of(*now, key="a")],
    )
    assert judge_changes(had, has) is None


def test_above_the_endpoint_limit_all_endpoints_are_evaluated(monkeypatch):
    many = slice_of(*MANY, key="z")
    had, has = versions([many], [many, slice_of("192.0.2.1", key="a")])
    assert judge_changes(had, has) is not None
    monkeypatch.setattr(usable_changes, "ENDPOINTS_MAX", len(MANY))
    assert judge_changes(had, has) is None
