import logging
import math

from userspace_proxy.dataplane.descriptors import Descriptors
from userspace_proxy.dataplane.memory_pressure import Memory, MemoryState

from .limits import MIB, Limit
from .timers import TimerLoop


class Watched:
    """Watched memory, and the calls that shed connections.

    Args:
        used_mib: The usage at the start.
        frees_mib: The memory that one step of resets frees.
    """

    def __init__(self, used_mib, frees_mib=0):
        self.loop = TimerLoop()
        self.limit = Limit(used_mib)
        self.found = [self.limit]
        self.frees_mib = frees_mib
        self.shed = []
        self.descriptors = Descriptors(self.loop, 1000)
        self.memory = Memory(self.loop, self.loop.clock, self.descriptors)
        self.memory.shed = self._shed
        self.memory.watch(lambda: self.found)

    def _shed(self, excess, spared, _now):
        self.shed.append((excess // MIB, spared // 1024))
        self.limit.used_mib -= self.frees_mib
        self.descriptors.hold(0)
        return 3 if self.frees_mib else 0

    def use(self, used_mib):
        """Change the usage, and advance the time until the watch has read it."""
        self.limit.used_mib = used_mib
        self.loop.advance(0.25)


def test_unwatched_memory_is_not_read_and_sets_no_timer():
    loop = TimerLoop()
    memory = Memory(loop, loop.clock, Descriptors(loop, 1000))
    memory.look()
    memory.note(1 << 40)
    assert (memory.state, memory.due, loop.waiting) == (MemoryState(), math.inf, 0)


def test_below_the_memory_threshold_no_connections_are_shed():
    watched = Watched(179)
    watched.loop.advance(10.0)
    assert watched.memory.state == (179 * MIB, 200 * MIB, False, False)
    assert watched.shed == []


def test_at_90_percent_connections_are_reset_until_usage_falls_below_85_percent():
    watched = Watched(180, frees_mib=4)
    assert watched.memory.state.is_short
    assert not watched.descriptors.has_room(1)
    watched.loop.advance(0.5)
    # The goal is 170 MiB; connections that hold up to 200 MiB / 64 are spared.
    assert watched.shed == [(10, 3200), (6, 3200), (2, 3200)]
    watched.loop.advance(0.25)
    assert watched.memory.state == (168 * MIB, 200 * MIB, False, True)
    assert watched.descriptors.has_room(1)


def test_a_memory_shortage_is_reported_as_recent_for_ten_seconds():
    watched = Watched(180)
    watched.use(100)
    watched.loop.advance(9.0)
    assert watched.memory.state[2:] == (False, True)
    watched.loop.advance(1.0)
    assert watched.memory.state[2:] == (False, False)


def test_connections_are_shed_immediately_if_usage_grows_and_later_if_it_is_stable():
    watched = Watched(180, frees_mib=1)
    for used_mib in (180, 180, 181, 181):
        watched.limit.used_mib = used_mib
        watched.memory.note(64 * 1024)
    assert [excess for excess, _ in watched.shed] == [10, 11]


def test_a_memory_shortage_ends_below_90_percent_if_connections_hold_little():
    watched = Watched(185)
    watched.use(182)
    assert watched.memory.state.is_short
    watched.use(179)
    assert not watched.memory.state.is_short
    watched.use(179)
    assert not watched.memory.state.is_short


def test_usage_is_read_early_if_stalled_readers_hold_a_quarter_of_the_headroom():
    watched = Watched(100)
    # The usage is 80 MiB below the threshold.
    for _ in range(19):
        watched.memory.note(MIB)
    assert watched.limit.estimates == 0
    watched.limit.used_mib = 181
    watched.memory.note(MIB)
    assert watched.memory.state.is_short


def test_memory_usage_is_read_at_most_a_hundred_times_a_second():
    watched = Watched(100)
    for _ in range(10):
        watched.loop.now += 0.003
        watched.memory.look()
    assert watched.limit.estimates == 2


def test_file_cache_does_not_cause_a_memory_shortage():
    watched = Watched(100)
    watched.limit.cache_mib = 95
    watched.loop.now += 0.1
    watched.memory.look()
    assert watched.memory.state == (100 * MIB, 200 * MIB, False, False)


def test_added_and_removed_memory_limits_are_detected():
    watched = Watched(190)
    watched.found = []
    watched.loop.advance(10.0)
    assert watched.memory.state == MemoryState()
    assert watched.descriptors.has_room(1)
    readings = watched.limit.readings
    watched.loop.advance(9.0)
    watched.memory.look()
    assert watched.limit.readings == readings
    watched.found = [watched.limit]
    watched.loop.advance(10.0)
    assert watched.memory.state.is_short


def test_the_tightest_of_several_memory_limits_applies():
    watched = Watched(100)
    watched.found = [watched.limit, Limit(150), Limit(120)]
    watched.loop.advance(10.0)
    assert watched.memory.state.used_bytes == 150 * MIB


def test_the_start_and_end_of_a_shortage_are_logged_once_a_minute(caplog):
    caplog.set_level(logging.INFO)
    watched = Watched(100, frees_mib=10)
    for _ in range(3):
        watched.use(185)
        watched.use(100)
    begin, end = caplog.records
    assert begin.getMessage() == (
        "memory limit nearly reached, pausing accepts and resetting connections"
    )
    assert (begin.levelno, begin.used_mib, begin.limit_mib) == (logging.WARNING, 185, 200)
    assert end.getMessage() == "accepting connections again after memory pressure"
    assert (end.used_mib, end.connections_reset) == (100, 3)
    watched.loop.advance(60.0)
    watched.use(185)
    watched.use(100)
    # This includes the resets of shortages that weren't logged.
    assert caplog.records[-1].connections_reset == 9


def test_close_ends_the_memory_watch():
    watched = Watched(100)
    for _ in range(2):
        watched.memory.close()
    watched.memory.note(1 << 40)
    watched.memory.look()
    assert (watched.loop.waiting, watched.limit.estimates) == (0, 0)
