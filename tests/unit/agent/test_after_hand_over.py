"""The life of a process after it has handed over a node."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.processes import child_pids, is_alive
from tests.processes import started
from userspace_proxy.agent.after_hand_over import has_children, start_while_workers_live
from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.errors import LockHeld

from .holders import CONTAINER, running, take_over


def end(taken):
    """Close the connection, as if the process that took the node over had exited."""
    taken._connection.close()


def is_pending(pid, number):
    """Return whether a signal is still pending for a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"^(?:Sig|Shd)Pnd:\s*(\w+)", status, re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def has_pidfd(pid):
    return any("pidfd" in str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())


@pytest.fixture
def holder():
    with running(sys.executable) as process:
        yield process


def test_a_handover_request_releases_the_lock_and_the_process_waits_for_its_children(holder):
    taken = take_over()
    assert taken.pid == holder.pid
    lock = NodeLock()
    lock.take()
    lock.release()
    taken.report_serving()
    # The holder has exec'd another program, which ignores the first signal.
    holder.send_signal(signal.SIGTERM)
    assert holder.poll() is None
    holder.stdin.close()
    assert holder.wait(20) == 0


LOOKS = "from userspace_proxy.agent import after_hand_over\nafter_hand_over._LOOK_S = 0.01"


def test_a_containers_process_waits_to_be_stopped_while_another_holds_the_lock():
    """If it exited, the kubelet would restart its container, which would take the node back."""
    with running(sys.executable, prefix=CONTAINER) as holder:
        take_over().report_serving()
        (process,) = child_pids(holder.pid)
        holder.stdin.close()
        place = Path(f"/proc/{process}/wchan")
        wait_for("the process's wait for a signal", lambda: "sigtimedwait" in place.read_text())
        os.kill(process, signal.SIGTERM)
        assert holder.wait(20) == 0


def test_a_containers_process_exits_when_no_process_holds_the_lock():
    with running(sys.executable, LOOKS, prefix=CONTAINER) as holder:
        taken = take_over()
        lock = NodeLock()
        lock.take()
        taken.report_serving()
        (process,) = child_pids(holder.pid)
        holder.stdin.close()
        reads = Path(f"/proc/{process}/io")
        wait_for("the end of the child", lambda: not child_pids(process))
        before = int(reads.read_text().split()[5])
        wait_for("more checks of the lock", lambda: int(reads.read_text().split()[5]) > before + 10)
        lock.release()
        assert holder.wait(20) == 0


def test_a_process_takes_the_node_back_if_its_successor_exits_before_serving(holder):
    """Each time, the process runs with its original command and environment."""
    for _ in range(2):
        taken = take_over()
        assert taken.is_awaited()
        end(taken)
        assert holder.stdout.readline() == "back argument 7 False\n"
        assert holder.stdout.readline() == "held\n"
    (child,) = child_pids(holder.pid)
    holder.stdin.close()
    wait_for("the end of the holder's child", lambda: not child_pids(holder.pid))
    assert not is_alive(child)
    wait_for("the descriptor to be closed", lambda: not has_pidfd(holder.pid))
    holder.terminate()
    assert holder.wait(20) == 3


def test_a_process_stopped_during_a_takeover_does_not_take_the_node_back(holder):
    taken = take_over()
    holder.send_signal(signal.SIGTERM)
    wait_for("the signal to be handled", lambda: not is_pending(holder.pid, signal.SIGTERM))
    end(taken)
    holder.stdin.close()
    assert holder.wait(20) == 0
    assert holder.stdout.read() == ""


def test_a_process_asked_to_hand_over_while_stopping_does_not_take_the_node_back():
    with running(sys.executable, drains=True) as holder:
        holder.terminate()
        assert holder.stdout.readline() == "draining\n"
        taken = take_over()
        assert taken.pid == holder.pid
        end(taken)
        holder.stdin.close()
        assert holder.wait(20) == 0
        assert holder.stdout.read() == ""


SIGNALS = {
    "while-its-program-is-tried": """
def run(*args, run=subprocess.run, **more):
    os.kill(os.getpid(), signal.SIGTERM)
    return run(*args, **more)
subprocess.run = run
""",
    "in-the-same-step-of-the-loop": """
from userspace_proxy.kernel import net_admin_proof
def is_answered(*args, is_answered=net_admin_proof.is_answered):
    os.kill(os.getpid(), signal.SIGTERM)
    return is_answered(*args)
net_admin_proof.is_answered = is_answered
""",
}
THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.mark.parametrize("thread", ["", THREAD], ids=["one-thread", "two-threads"])
@pytest.mark.parametrize("moment", SIGNALS)
def test_a_signal_during_exec_into_the_waiting_program_is_not_lost(moment, thread):
    """While this thread blocks the signal, the kernel delivers it to another thread."""
    with running(sys.executable, thread + SIGNALS[moment]) as holder:
        end(take_over())
        holder.stdin.close()
        assert holder.wait(20) == 0
        assert holder.stdout.read() == ""


def test_a_signal_while_taking_the_node_back_is_handled_afterwards():
    arrives = """
if "USERSPACE_PROXY_TAKES_BACK" in os.environ:
    os.kill(os.getpid(), signal.SIGTERM)
"""
    with running(sys.executable, arrives) as holder:
        end(take_over())
        assert holder.wait(20) == 3
        assert holder.stdout.read() == "back argument 7 False\nheld\n"


def test_no_report_is_awaited_after_the_previous_process_exited(holder):
    taken = take_over()
    holder.kill()
    holder.wait()
    assert not taken.is_awaited()
    taken.report_serving()


class Starts:
    """Attempts to take a lock that another holder releases at attempt number ``until``."""

    def __init__(self, until=10**9):
        self.count = 0
        self.stop = asyncio.Event()
        self._until = until
        self._other = NodeLock("a")
        self._other.take()
        self._lock = NodeLock("a")

    async def __call__(self):
        self.count += 1
        if self.count == self._until:
            self._other.release()
        self._lock.take()

    def close(self):
        self._other.release()
        self._lock.release()


async def test_a_node_is_taken_back_after_another_process_releases_it(caplog):
    with contextlib.closing(Starts(until=3)) as starts:
        assert await start_while_workers_live(starts, starts.stop, lambda: True, 0.0)
        assert starts.count == 3
    (record,) = caplog.records
    assert "another userspace-proxy of the name a" in record.getMessage()


async def test_a_node_is_not_taken_back_once_its_workers_have_exited():
    live = [True, True, False]
    with contextlib.closing(Starts()) as starts:
        assert not await start_while_workers_live(starts, starts.stop, lambda: live.pop(0), 0.0)
        assert starts.count == 3


async def test_a_stopping_process_no_longer_tries_to_take_a_node_back():
    with contextlib.closing(Starts()) as starts:
        asyncio.get_running_loop().call_soon(starts.stop.set)
        assert not await start_while_workers_live(starts, starts.stop, lambda: True, 3600.0)
        assert starts.count == 1


LEAVER = """
import logging
from userspace_proxy.agent.after_hand_over import leave
from userspace_proxy.cli.logs import set_up_logging

set_up_logging("text", 0)
for _ in range(1000):
    logging.getLogger("userspace_proxy").info("a line")
leave()
"""


def test_a_process_flushes_its_log_before_it_leaves_the_node():
    command = [sys.executable, "-c", LEAVER]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "exiting, leaving the workers running" in done.stderr.splitlines()[-1]


def test_a_child_process_is_found_after_its_start():
    with started(["cat"]):
        assert has_children()


def test_a_handover_request_uses_no_file_of_the_virtual_environment(tmp_path):
    """An in-place upgrade replaces these files."""
    venv.create(tmp_path / "venv", symlinks=True)
    with running(tmp_path / "venv/bin/python") as holder:
        shutil.rmtree(tmp_path / "venv")
        taken = take_over()
        assert taken.pid == holder.pid
        taken.report_serving()
        holder.stdin.close()
        assert holder.wait(20) == 0


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        pytest.param(
            "sys.base_prefix = sys.base_exec_prefix = '/gone'",
            "No module named 'encodings'",
            id="no-library",
        ),
        pytest.param(
            "def execve(*_): raise OSError(12, 'Cannot allocate memory')\nos.execve = execve",
            "Cannot allocate memory",
            id="refused-by-the-kernel",
        ),
    ],
)
def test_a_process_that_cannot_exec_reports_the_cause_and_continues(spoil, cause):
    with running(sys.executable, spoil) as holder:
        for _ in range(2):
            with pytest.raises(LockHeld, match=rf"pid {holder.pid}\).*waits for workers.*{cause}"):
                take_over()
        holder.terminate()
        assert holder.wait(20) == 3
