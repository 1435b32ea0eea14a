from userspace_proxy.facts import TIMES_BOUNDS_S, EndpointCounters, GroupCounters
from userspace_proxy.model import SocketAddress
from userspace_proxy.plane.messages import DurationReport, EndpointReport, GroupReport
from userspace_proxy.plane.totals import Totals

PODS = (SocketAddress("10.244.1.7", 8080), SocketAddress("10.244.2.7", 8080))


def make_report(group, *, refused, connections):
    counters, endpoint = GroupCounters(), EndpointCounters()
    counters.refused, endpoint.connections = refused, connections
    endpoints = [EndpointReport(pod, endpoint.figures()) for pod in PODS]
    times = DurationReport([1, *[0] * len(TIMES_BOUNDS_S)], 0.25)
    return GroupReport(group, counters.figures(), endpoints, [], times)


def test_what_is_counted_for_all_groups_and_endpoints_is_added():
    totals = Totals()
    totals.add(make_report(1, refused=3, connections=5))
    totals.add(make_report(2, refused=4, connections=1))
    assert totals.counters.refused == 7
    assert totals.endpoints.connections == 12
    assert (totals.connect_times.count, totals.connect_times.seconds) == (2, 0.5)
    assert totals.first_byte_times.count == 0
