from userspace_proxy.facts import EndpointCounters
from userspace_proxy.facts.late_bytes import AT_END_S, note_arrived, note_late
from userspace_proxy.facts.streak import LateByte
from userspace_proxy.model import Failure


def test_a_byte_that_the_end_brings_is_told_from_one_that_is_slow():
    for left_s, is_at_end in [(0.0, True), (AT_END_S, False), (1.5, False)]:
        counters = EndpointCounters()
        ends = counters.ends
        note_late(counters, 5.0, 2.54, left_s, is_counted=False)
        assert (ends.failures, ends.failure, ends.last_at) == (1, Failure.UNANSWERED, 5.0 - left_s)
        assert ends.late == LateByte(2.54, is_at_end)


def test_one_slow_byte_shows_that_it_is_not_the_end_that_brings_them_until_the_streak_is_over():
    counters = EndpointCounters()
    ends = counters.ends
    for waited_s, left_s, is_at_end in [(2.0, 0.0, True), (2.5, 0.5, False), (3.0, 0.0, False)]:
        counters.ended_unanswered(waited_s, Failure.UNANSWERED)
        note_late(counters, 9.0, waited_s, left_s, is_counted=True)
        assert ends.last_at == waited_s
        assert ends.late == LateByte(waited_s, is_at_end)
    assert ends.failures == 3, "each was counted before"
    ends.succeeded_at = 4.0
    note_late(counters, 5.0, 1.0, 0.0, is_counted=False)
    assert ends.late == LateByte(1.0, True)


def test_a_client_that_has_a_late_byte_after_all_has_not_left():
    counters = EndpointCounters()
    counters.ended_unanswered(1.0, Failure.UNANSWERED)
    note_late(counters, 2.0, 2.0, 1.0, is_counted=True)
    note_late(counters, 3.0, 2.0, 1.0, is_counted=False)
    assert (counters.left, counters.ends.is_on) == (2, True)
    note_arrived(counters, 4.0)
    assert (counters.left, counters.ends.is_on) == (1, False)
