from userspace_proxy.agent.rounds.wall_clock import WallClock


class Clocks:
    def __init__(self):
        self.monotonic, self.unix = 100.0, 1_700_000_000.0

    def make(self):
        return WallClock(lambda: self.monotonic, lambda: self.unix)


def test_a_moments_unix_time_stays_the_same_despite_a_small_clock_deviation():
    clocks = Clocks()
    clock = clocks.make()
    before = clock.unix(90.0)
    assert before == 1_699_999_990.0
    clocks.monotonic, clocks.unix = 160.0, 1_700_000_060.02
    clock.tick()
    assert clock.now == 160.0
    assert clock.unix(90.0) == before


def test_a_changed_system_clock_is_followed():
    clocks = Clocks()
    clock = clocks.make()
    for by_s in (3600.0, -3600.0):
        clocks.unix = 1_700_000_000.0 + by_s
        clock.tick()
        assert clock.unix(90.0) == 1_699_999_990.0 + by_s


def test_the_monotonic_time_of_an_event_that_never_happened_becomes_unix_time_0():
    assert [Clocks().make().unix(at) for at in (-1.0, 0.0)] == [0.0, 1_699_999_900.0]
