import errno

from userspace_proxy.agent.endpoint_view import show_traffic, view_endpoint
from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.facts import EndpointCounters, TrafficByCause
from userspace_proxy.model import CauseCode, SocketAddress
from userspace_proxy.policy import EndpointVerdict

POD = SocketAddress("192.0.2.1", 8080)
CLOCK = WallClock(lambda: 0.0, lambda: 1000.0)


def test_it_shows_how_much_of_its_share_an_endpoint_has():
    verdict = EndpointVerdict(POD, True, "ready", weight=10)
    view = view_endpoint(verdict, EndpointCounters(), CLOCK, {}, {POD: 0.4}, {})
    assert (view.starting, view.preference) == (0.4, "weight 10, starts slowly: 40 %")
    assert view_endpoint(verdict, EndpointCounters(), CLOCK, {}, {}, {}).starting is None


def test_one_that_is_not_usable_does_not_start():
    verdict = EndpointVerdict(POD, False, "not ready")
    assert view_endpoint(verdict, EndpointCounters(), CLOCK, {}, {POD: 0.4}, {}).preference == ""


def test_its_traffic_is_a_copy():
    counters = EndpointCounters()
    counters.count_failure(CauseCode.ENDPOINT_REFUSES)
    traffic = TrafficByCause()
    show_traffic(traffic, counters)
    counters.count_failure(CauseCode.ENDPOINT_REFUSES)
    assert (traffic.failures, traffic.failures_by_cause) == (1, {"endpoint-refuses": 1})


def test_a_fault_on_purpose_does_not_look_like_a_failure():
    verdict, counters = EndpointVerdict(POD, True, "ready"), EndpointCounters()
    counters.dials.failed(1.0, errno.ECONNREFUSED)
    failing = view_endpoint(verdict, counters, CLOCK, {POD: 2.0}, {}, {})
    assert failing.cause.code is CauseCode.ENDPOINT_REFUSES
    on_purpose = view_endpoint(verdict, counters, CLOCK, {POD: 2.0}, {}, {POD: ["refuse"]})
    assert on_purpose.cause.code is CauseCode.FAULT_ON_PURPOSE
    assert str(on_purpose.cause) == "192.0.2.1:8080 has a fault on purpose: refuse"
