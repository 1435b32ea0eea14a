from userspace_proxy.dataplane import EndpointCounters
from userspace_proxy.model import CauseCode


def test_every_counter_is_part_of_a_sum():
    total, more = EndpointCounters(), EndpointCounters()
    numbers = range(1, len(EndpointCounters.names) + 1)
    more.add(numbers)
    total.add(more.figures())
    total.add(more.figures())
    assert [getattr(total, name) for name in EndpointCounters.names] == [2 * n for n in numbers]


def test_failures_are_counted_by_cause():
    counters = EndpointCounters()
    for code in (CauseCode.ENDPOINT_REFUSES, CauseCode.ENDPOINT_SILENT, CauseCode.ENDPOINT_SILENT):
        counters.count_failure(code)
    counters.count_failure(CauseCode.ENDPOINT_UNREACHABLE)
    counters.count_failure(CauseCode.ENDPOINT_RESETS)
    assert counters.failures == 5
    assert counters.failures_by_cause() == {
        CauseCode.ENDPOINT_REFUSES: 1,
        CauseCode.ENDPOINT_SILENT: 2,
        CauseCode.ENDPOINT_UNREACHABLE: 1,
        CauseCode.ENDPOINT_FAILS: 1,
    }
    assert EndpointCounters().failures_by_cause() == {}
