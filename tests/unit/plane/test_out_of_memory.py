import subprocess
import sys

import pytest

from userspace_proxy.plane.out_of_memory import OUT_OF_MEMORY, be_killed_first

LOOPS = [pytest.param("asyncio", id="asyncio"), pytest.param("uvloop", id="uvloop")]

SCRIPT = """\
import asyncio, os, sys, {loop}
from userspace_proxy.dataplane.reactor import IN, Callback, Reactor
from userspace_proxy.plane.out_of_memory import exit_on_memory_error

def fail(*_):
    raise {error}

class FailsAtItsEnd:
    __del__ = fail

loop = {loop}.new_event_loop()
exit_on_memory_error(loop)
{failure}
loop.call_soon(loop.stop)
loop.run_forever()
loop.run_until_complete(asyncio.sleep(0))
"""

SOCKET_EVENT = """\
import socket
one, other = socket.socketpair()
other.send(b"x")
Reactor(loop).watch(one.fileno(), IN, Callback(fail))
loop.call_later(1, loop.stop)
loop.run_forever()"""


def run(loop, failure, error="MemoryError"):
    script = SCRIPT.format(loop=loop, error=error, failure=failure)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "failure",
    [
        pytest.param("loop.call_soon(fail)", id="callback"),
        pytest.param("loop.call_later(0, fail); loop.call_later(1, loop.stop)", id="timer"),
        pytest.param(SOCKET_EVENT, id="socket"),
        pytest.param("loop.call_soon(FailsAtItsEnd)", id="destructor"),
    ],
)
def test_a_memory_error_ends_the_process_immediately_without_logging(loop, failure):
    done = run(loop, failure)
    assert (done.returncode, done.stderr) == (OUT_OF_MEMORY, "")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("failure", ["loop.call_soon(fail)", "loop.call_soon(FailsAtItsEnd)"])
def test_an_exception_other_than_a_memory_error_is_logged_without_an_exit(loop, failure):
    done = run(loop, failure, "ValueError('a bug')")
    assert done.returncode == 0
    assert "ValueError: a bug" in done.stderr


@pytest.fixture
def proc(tmp_path):
    """The /proc files of a process in a cgroup with a memory limit."""
    (tmp_path / "mountinfo").write_text(f"30 24 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw")
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "oom_score_adj").write_text("0\n")
    return tmp_path


@pytest.mark.parametrize(
    ("inherited", "score"),
    [
        pytest.param("0", "300", id="a-service"),
        pytest.param("-997", "-697", id="critical-for-the-node"),
        pytest.param("900", "1000", id="best-effort"),
    ],
)
def test_with_a_memory_limit_a_worker_is_killed_before_its_parent(proc, inherited, score):
    (proc / "oom_score_adj").write_text(f"{inherited}\n")
    be_killed_first(proc)
    assert (proc / "oom_score_adj").read_text() == score


def test_without_a_memory_limit_a_worker_has_its_parents_oom_score(proc):
    (proc / "memory.max").write_text("max\n")
    be_killed_first(proc)
    assert (proc / "oom_score_adj").read_text() == "0\n"


def test_a_missing_oom_score_file_is_ignored(proc):
    (proc / "oom_score_adj").unlink()
    be_killed_first(proc)
    assert not (proc / "oom_score_adj").exists()
