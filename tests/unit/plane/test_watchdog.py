import os
import signal

import pytest

from userspace_proxy.plane import workers as slots
from userspace_proxy.plane.watchdog import BEAT_S, HUNG_IN_START_S, HUNG_S, LOOK_S, Heart, Watchdog

from ..dataplane.timers import TimerLoop
from ..dataplane.waiting import until
from .pool import is_gone

PID = 4711
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Process:
    """A process with fake /proc files, and its watchdog."""

    def __init__(self, proc):
        self._stat = proc / str(PID) / "stat"
        self._stat.parent.mkdir()
        self._cpu_s = 0.0
        self.watchdog = Watchdog(proc)

    def beats(self):
        os.eventfd_write(self.watchdog.fileno(), 1)

    def looks(self, state, count=1, cpu_s=0.0):
        """Check this many times, after this much CPU time each; return the charged time."""
        for _ in range(count):
            self._cpu_s += cpu_s
            half = round(self._cpu_s / 2 * TICKS_PER_S)
            fields = ["0"] * 10 + [str(half), str(half)]
            self._stat.write_text(f"{PID} (a) S b) {state} {' '.join(fields)} 0 0\n")
            charged_s = self.watchdog.look(PID)
        return charged_s


@pytest.fixture
def process(tmp_path):
    process = Process(tmp_path)
    yield process
    process.watchdog.close()
    process.watchdog.close()


def test_closing_a_watchdog_closes_its_descriptor(process):
    """Each restarted worker has a new watchdog."""
    number = process.watchdog.fileno()
    process.watchdog.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.parametrize("state", ["S", "T", "t", "I", "Z"])
def test_a_sleeping_or_stopped_process_is_charged_at_each_check(process, state):
    assert process.looks(state, 4) == 4 * LOOK_S == HUNG_S


@pytest.mark.parametrize("state", ["R", "D"])
def test_a_process_waiting_for_a_cpu_or_a_disk_is_not_charged(process, state):
    assert process.looks(state, 100) == 0.0


@pytest.mark.parametrize("state", ["R", "D"])
def test_a_running_process_is_charged_its_cpu_time(process, state):
    assert process.looks(state, 10, cpu_s=0.1) == pytest.approx(1.0)


def test_a_heartbeat_clears_the_time_charged_to_a_process(process):
    process.looks("S", 4)
    process.beats()
    assert process.looks("S") == 0.0
    assert process.looks("S") == LOOK_S


def test_cpu_time_before_a_heartbeat_is_not_charged_later(process):
    process.beats()
    process.looks("R", cpu_s=60.0)
    assert process.looks("R", cpu_s=0.02) == pytest.approx(0.02)


def test_several_heartbeats_between_two_checks_count_as_one(process):
    for _ in range(100):
        process.beats()
    assert process.looks("S", 2) == LOOK_S


def test_a_process_whose_state_cannot_be_read_is_charged_slowly(process):
    assert [process.watchdog.look(PID) for _ in range(2)] == [LOOK_S / 8, LOOK_S / 4]


def test_a_heartbeat_is_sent_immediately_and_while_the_loop_iterates():
    loop = TimerLoop()
    watchdog = Watchdog()
    heart = Heart(loop, os.dup(watchdog.fileno()))
    assert os.eventfd_read(watchdog.fileno()) == 1
    loop.advance(10.5 * BEAT_S)
    assert os.eventfd_read(watchdog.fileno()) == 10
    heart.close()
    assert loop.waiting == 0
    watchdog.close()


async def test_a_hung_worker_is_killed_and_replaced(make, caplog):
    pool = await make(is_watching=True)
    web, pod = pool.service(), pool.endpoint()
    pool.update(web, pod.address)
    for times in (1, 2):
        hung = pool.pids[0]
        os.kill(hung, signal.SIGSTOP)
        clients = [await pool.client(web) for _ in range(20)]
        await until(lambda hung=hung: is_gone(hung))
        await pool.wait_for_restarts(0, times=times)
        for _ in clients:
            await (await pod.accept()).send(b"hello")
        assert [await client.read() for client in clients] == [b"hello"] * 20
    assert [(w.restarts, w.hung) for w in pool.plane.state().workers] == [(2, 2), (0, 0)]
    assert caplog.messages == ["worker 0 hung, restarting it"] * 2


async def test_workers_stopped_together_with_the_control_process_are_not_killed(pool):
    pids = pool.pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    # The time doesn't matter, because the control process checks once when it continues.
    pool.timers.jump(3600)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    await pool.plane.refresh()
    assert pool.pids == pids


@pytest.mark.long
async def test_a_worker_hung_during_its_start_is_replaced_later(pool):
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: pool.restarts[0] == 1)
    hung = pool.pids[0]
    os.kill(hung, signal.SIGSTOP)
    for _ in range(round(HUNG_IN_START_S / LOOK_S) - 1):
        pool.workers[0].watch()
    assert not is_gone(hung)
    await until(lambda: pool.workers[0].watch() or pool.restarts[0] == 2)
    assert is_gone(hung)
    pool.timers.jump(slots._FIRST_PAUSE_S)
    await pool.all_run()
