import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.policy.flow_table import FlowTable

from ..kept import kept_by


class Flow:
    """A flow in a flow table."""

    holders = ()
    is_stream = False
    used = 0.0

    def __init__(self, name="", client_ip="", group="dns"):
        self.name = name
        self.client_ip = client_ip or name
        self.group = group

    def __repr__(self):
        return self.name


ALICE, BOB, CAROL = "alice", "bob", "carol"


def table_of(*names, max_flows=10, idle_s=None):
    """Return a table and its flows, of which one was added each second, the first at 0 s."""
    table = FlowTable(max_flows, idle_s)
    flows = [Flow(name) for name in names]
    for now, flow in enumerate(flows):
        table.add(flow, float(now))
    return table, flows


@pytest.mark.parametrize(
    ("is_stream", "idle_s", "lasts"),
    [
        pytest.param(False, None, 30, id="one-exchange"),
        pytest.param(True, None, 120, id="back-and-forth"),
        pytest.param(False, 250, 250, id="one-exchange-as-set"),
        pytest.param(True, 5, 5, id="back-and-forth-as-set"),
    ],
)
def test_a_flow_expires_after_its_idle_timeout(is_stream, idle_s, lasts):
    table, (flow,) = table_of(ALICE, idle_s=idle_s)
    if is_stream:
        table.make_stream(flow, 0.0)
    assert table.expired(lasts - 0.1) == []
    assert table.expired(lasts) == [flow]


def test_activity_restarts_the_idle_timeout_of_a_flow():
    table, (alice, bob) = table_of(ALICE, BOB)
    table.use(alice, 20.0)
    assert table.expired(31.0) == [bob]
    assert table.expired(50.0) == [bob, alice]


def test_a_second_use_within_a_second_does_not_reorder_a_flow():
    table, (alice, _bob) = table_of(ALICE, BOB)
    table.use(alice, 0.9)
    assert table.first_to_go() is alice
    assert table.expired(30.0) == [alice]


def test_the_longest_idle_young_flow_is_evicted_before_streams():
    table, (alice, bob, carol) = table_of(ALICE, BOB, CAROL)
    assert table.first_to_go() is alice
    table.make_stream(alice, 5.0)
    assert table.first_to_go() is bob
    table.use(bob, 6.0)
    assert table.first_to_go() is carol
    table.make_stream(carol, 7.0)
    table.make_stream(bob, 8.0)
    assert table.first_to_go() is alice


def flood(count, *, client_ip="", group="dns"):
    return [Flow(f"flood {n}", client_ip or f"client {n}", group) for n in range(count)]


@pytest.mark.parametrize(
    "is_stream", [pytest.param(False, id="one-exchange"), pytest.param(True, id="back-and-forth")]
)
def test_a_client_above_its_share_is_evicted_first(is_stream):
    table, (alice,) = table_of(ALICE, max_flows=100)
    for flow in flood(99, client_ip=BOB):
        table.add(flow, 1.0)
        if is_stream:
            table.make_stream(flow, 1.0)
    for number in range(83):
        assert table.first_to_go().name == f"flood {number}"
        table.remove(table.first_to_go())
    # BOB's remaining sixteen flows are within his share: the longest idle flow is the next.
    assert table.first_to_go() is alice


def test_the_largest_clients_flow_is_evicted_even_if_recently_used():
    table, alice = FlowTable(100), Flow(ALICE)
    for number, flow in enumerate([*flood(20, client_ip=CAROL), alice, *flood(40, client_ip=BOB)]):
        table.add(flow, float(number))
    for flow in flood(39):
        table.add(flow, 1000.0)
    for number in range(20):
        first = table.first_to_go()
        assert (first.client_ip, first.name) == (BOB, f"flood {number}")
        table.remove(first)
    # Bob and Carol have twenty flows each; Carol exceeded her share first, so she loses a flow.
    assert table.first_to_go().client_ip == CAROL


def test_a_clients_young_flows_are_evicted_before_its_streams():
    table, flows = FlowTable(100), flood(40, client_ip=BOB)
    for number, flow in enumerate(flows):
        table.add(flow, float(number))
    for flow in flows[:30]:
        table.make_stream(flow, 100.0)
    gone = []
    for _ in range(12):
        gone.append(table.first_to_go())
        table.remove(gone[-1])
    assert gone == flows[30:] + flows[:2]


def test_addresses_of_an_ipv6_network_above_its_share_are_evicted_first():
    # Their Service port is above its share, too, and has alice's flow first.
    table, alice = FlowTable(100), Flow(ALICE)
    table.add(alice, 0.0)
    for number in range(51):
        table.add(Flow(f"flood {number}", f"2001:db8::{number:x}"), 1.0)
    assert table.first_to_go().name == "flood 0"
    table.remove(table.first_to_go())
    assert table.first_to_go() is alice


def test_a_service_above_its_share_is_evicted_first():
    table, alice = FlowTable(100), Flow(ALICE, group="syslog")
    table.add(alice, 0.0)
    for flow in flood(51):
        table.add(flow, 1.0)
    assert table.first_to_go().name == "flood 0"
    table.remove(table.first_to_go())
    assert table.first_to_go() is alice


def test_marking_a_flow_as_a_stream_again_does_not_prolong_the_flow():
    table, (alice,) = table_of(ALICE)
    table.make_stream(alice, 1.0)
    table.make_stream(alice, 50.0)
    assert len(table) == 1
    assert table.expired(121.0) == [alice]


def test_a_removed_flow_of_either_class_leaves_no_state_in_the_table():
    before = kept_by(FlowTable(10))
    table, (alice, bob) = table_of(ALICE, BOB)
    table.make_stream(bob, 2.0)
    for flow in (alice, bob, bob):
        table.remove(flow)
    assert len(table) == 0
    assert kept_by(table) == before
    assert table.first_to_go() is None
    assert table.expired(1e9) == []


def test_a_flow_table_is_full_at_its_limit():
    table, _ = table_of(ALICE, BOB, max_flows=3)
    assert not table.is_full
    table.add(Flow(CAROL), 3.0)
    assert table.is_full


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "use", "stream", "remove"]), st.integers(0, 5)),
        max_size=60,
    )
)
def test_eviction_always_begins_with_the_least_recently_used_young_flow(steps):
    table, flows = FlowTable(100), [Flow(str(number)) for number in range(6)]
    inside, now = set(), 0.0
    for what, who in steps:
        flow = flows[who]
        now += 0.4
        if what == "add" and flow not in inside:
            inside.add(flow)
            table.add(flow, now)
        elif what == "use" and flow in inside:
            table.use(flow, now)
        elif what == "stream" and flow in inside:
            table.make_stream(flow, now)
        elif what == "remove":
            inside.discard(flow)
            table.remove(flow)
        assert len(table) == len(inside)
        first = table.first_to_go()
        young = [f.used for f in inside if not f.is_stream]
        used = young or [f.used for f in inside]
        assert (first.used if first else None) == min(used, default=None)
    assert set(table.expired(now + 121)) == inside
