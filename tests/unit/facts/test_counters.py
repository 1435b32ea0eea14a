import pytest

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.facts import (
    AfterWait,
    ClientMistake,
    CounterTable,
    EndpointCounters,
    GroupCounters,
    PortFigures,
    StreakPart,
    Traffic,
    WaitCounts,
    counted_names,
)
from userspace_proxy.facts.streak import LateByte
from userspace_proxy.model import Failure, SocketAddress


@pytest.mark.parametrize("kind", [EndpointCounters, GroupCounters])
def test_every_counter_of_two_tables_is_summed(kind):
    total, more = kind(), kind()
    numbers = range(1, len(kind.names) + 1)
    more.add(numbers)
    total.add(more.figures())
    total.add(more.figures())
    assert list(total.figures()) == [2 * n for n in numbers]


def test_each_figure_in_the_table_has_a_counter():
    assert set(counted_names(Traffic)) <= set(EndpointCounters.names)
    waits = {f"waits.{name}" for name in counted_names(WaitCounts)}
    assert {*counted_names(PortFigures), *waits} <= set(GroupCounters.names)


def test_adding_the_wrong_number_of_counter_values_is_an_error():
    with pytest.raises(ValueError, match="longer"):
        GroupCounters().add([1] * (len(GroupCounters.names) + 1))


def test_failures_are_counted_by_cause():
    counters = EndpointCounters()
    for code in (CauseCode.ENDPOINT_REFUSES, CauseCode.ENDPOINT_SILENT, CauseCode.ENDPOINT_SILENT):
        counters.count_failure(code)
    counters.count_failure(CauseCode.ENDPOINT_UNREACHABLE)
    counters.count_failure(CauseCode.ENDPOINT_RESETS)
    counters.count_failure(CauseCode.OUT_OF_PORTS)
    assert counters.failures == 6
    assert counters.failures_by_cause() == {
        CauseCode.ENDPOINT_REFUSES: 1,
        CauseCode.ENDPOINT_SILENT: 2,
        CauseCode.ENDPOINT_UNREACHABLE: 1,
        CauseCode.ENDPOINT_RESETS: 1,
        CauseCode.ENDPOINT_FAILS: 1,
    }
    assert EndpointCounters().failures_by_cause() == {}


def test_closes_after_a_client_half_closes_are_counted_in_a_row_until_a_client_is_answered():
    counters = EndpointCounters()
    assert [counters.ended_after_client() for _ in range(20)] == [False] * 19 + [True]
    counters.ends.succeeded_at = 5.0
    assert not counters.ended_after_client()


def test_a_service_port_counts_as_answered_once_any_of_its_endpoints_has_answered():
    table, pod = CounterTable(), SocketAddress("10.0.0.1", 80)
    table.counters_of(pod)
    assert not table.has_answered()
    table.counters_of(pod).ends.succeeded_at = 5.0
    assert table.has_answered()


def test_a_flow_answered_late_is_a_failure_and_counts_as_late():
    counters = EndpointCounters()
    counters.ended_unanswered(5.0, Failure.NO_DATAGRAM)
    counters.came_late(8.0)
    assert (counters.unanswered_flows, counters.ends.is_on) == (1, True)
    assert counters.ends.part.late == LateByte(8.0, is_at_end=False)
    assert (counters.unanswered, counters.late, counters.ends.part.failures) == (0, 1, 1)


def test_a_client_whose_connections_are_closed_between_successes_is_recorded_as_excluded():
    counters = EndpointCounters()
    for now in (1.0, 3.0):
        counters.ended_unanswered(now, Failure.CLOSED, "192.0.2.7")
        counters.ended_unanswered(now, Failure.UNANSWERED, "192.0.2.8")
        counters.ended_unanswered(now, Failure.NO_DATAGRAM)
        counters.ends.succeeded_at = 2.0
    assert (counters.exclusions.part.failures, counters.exclusions.part.client) == (1, "192.0.2.7")
    assert [*counters.exclusions.clients] == ["192.0.2.7"]


def test_a_client_that_leaves_after_a_wait_is_counted_separately():
    table = CounterTable()
    after_wait = AfterWait(table)
    after_wait.ended_unanswered(1.0, Failure.UNANSWERED, "192.0.2.7")
    assert table.counters.aborts_after_wait == after_wait.client_aborts == 1
    assert after_wait.ends.is_on


def test_counters_of_an_endpoint_are_created_on_first_use():
    table, pod = CounterTable(), SocketAddress("10.0.0.1", 80)
    assert table.find_counters(pod) is None
    counters = table.counters_of(pod)
    assert table.find_counters(pod) is counters


def test_read_counters_creates_no_counters():
    table, counted, others = CounterTable(), *(SocketAddress("10.0.0.1", n) for n in (1, 2))
    counters = table.counters_of(counted)
    assert table.read_counters(counted) is counters
    assert table.read_counters(others).figures() == EndpointCounters().figures()
    assert table.find_counters(others) is None


def test_counts_of_a_removed_endpoint_are_included_in_the_totals():
    table, kept, idle, busy = CounterTable(), *(SocketAddress("10.0.0.1", n) for n in (1, 2, 3))
    for endpoint in (kept, idle, busy):
        table.counters_of(endpoint).connections = 2
    table.counters_of(busy).active = 1
    table.fold({kept})
    assert [endpoint for endpoint, _ in table.each_counters()] == [kept, busy]
    assert (table.totals().connections, table.totals().active) == (6, 1)


def test_counters_are_taken_once_and_gauges_as_differences():
    counters = EndpointCounters()
    assert not any(counters.take())
    counters.connections = counters.active = 3
    counters.ends.failed(5.0, Failure.CLOSED)
    taken = dict(zip(counters.names, counters.take(), strict=True))
    assert (taken["connections"], taken["active"]) == (3, 3)
    counters.active = 1
    taken = dict(zip(counters.names, counters.take(), strict=True))
    assert (taken["connections"], taken["active"], counters.active) == (0, -2, 1)
    counters.active = 0
    assert dict(zip(counters.names, counters.take(), strict=True))["active"] == -1


def test_new_streaks_of_failures_are_taken_only_once():
    counters = EndpointCounters()
    assert counters.take_streaks() == {}
    counters.ends.failed(5.0, Failure.CLOSED)
    counters.dials.succeeded_at = 6.0
    taken = counters.take_streaks()
    assert {name: (part.succeeded_at, part.failures) for name, part in taken.items()} == {
        "ends": (counters.ends.succeeded_at, 1),
        "dials": (6.0, 0),
    }
    assert counters.take_streaks() == {}


def test_counters_of_a_group_are_taken_only_once():
    table = CounterTable()
    assert table.take() == (None, None, None, {})
    table.counters.aborts_after_wait = 2
    table.note_mistake(ClientMistake.HOP_LIMIT, "192.0.2.7", 1.0)
    taken = table.take()
    assert (taken.counters.aborts_after_wait, [*taken.client_mistakes]) == (
        2,
        [ClientMistake.HOP_LIMIT],
    )
    assert table.take() == (None, None, None, {})


def test_an_aborted_connection_is_counted_with_its_client():
    counters = EndpointCounters()
    counters.was_cut(5.0, client="192.0.2.7")
    assert (counters.endpoint_aborts, counters.cuts.part.client) == (1, "192.0.2.7")


def test_client_mistakes_are_counted_by_kind():
    table = CounterTable()
    assert table.client_mistakes == {}
    for now, client in ((1.0, "192.0.2.7"), (2.0, "192.0.2.8")):
        table.note_mistake(ClientMistake.HOP_LIMIT, client, now)
    table.note_mistake(ClientMistake.NO_PROXY_HEADER, "192.0.2.9", 3.0)
    streak, other = table.client_mistakes.values()
    assert other.part.failures == 1
    assert streak.whole() == StreakPart(-1.0, 2, 1.0, 2.0, Failure.OTHER, 0, "192.0.2.8")


def test_a_client_mistake_has_the_name_of_its_cause():
    assert {CauseCode(one).name for one in ClientMistake} == set(ClientMistake.__members__)


def test_total_traffic_includes_current_and_removed_endpoints():
    table, pod = CounterTable(), SocketAddress("10.244.0.7", 80)
    for n, endpoint in enumerate((pod, SocketAddress("10.244.0.9", 80)), start=1):
        table.counters_of(endpoint).connections = n
        table.counters_of(endpoint).client_aborts = 2 * n
    table.fold((pod,))
    assert table.carried() == Traffic(connections=3, client_aborts=6)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(lambda table, _: table.counters, id="of-all-clients"),
        pytest.param(lambda table, _: table.connect_times.add(0.1), id="connect-times"),
        pytest.param(lambda table, _: table.first_byte_times.add(0.1), id="first-byte-times"),
        pytest.param(lambda table, pod: table.counters_of(pod), id="of-an-endpoint"),
        pytest.param(
            lambda table, pod: (table.counters_of(pod), table.fold(())), id="of-a-former-endpoint"
        ),
        pytest.param(
            lambda table, _: table.note_mistake(ClientMistake.HOP_LIMIT, "192.0.2.7", 1.0),
            id="mistakes",
        ),
    ],
)
def test_has_counted_is_true_after_any_count(count):
    table, pod = CounterTable(), SocketAddress("10.0.0.1", 80)
    table.read_counters(pod)
    assert not table.has_counted
    count(table, pod)
    assert table.has_counted
