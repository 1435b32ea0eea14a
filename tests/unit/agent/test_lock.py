"""The lock is per network namespace; it is free again when its owner dies in any way."""

import os
import subprocess
import sys

import pytest

from userspace_proxy.agent.lock import NodeLock, running_proxies
from userspace_proxy.errors import LockHeld

HOLD = """
import sys
from userspace_proxy.agent.lock import NodeLock, running_proxies
lock = NodeLock()
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()


def test_a_second_proxy_is_told_the_process_of_the_first(holder):
    with pytest.raises(LockHeld) as caught:
        NodeLock().take()
    assert str(caught.value) == (
        f"cannot start: another userspace-proxy (pid {holder.pid}) steers this node "
        "(stop it first, or run with --steering=none)"
    )


def test_the_lock_of_a_killed_proxy_is_free(holder):
    holder.kill()
    holder.wait()
    lock = NodeLock()
    lock.take()
    lock.release()


def test_a_released_lock_can_be_taken_again():
    first = NodeLock()
    first.take()
    with pytest.raises(LockHeld, match=str(os.getpid())):
        NodeLock().take()
    first.release()
    first.release()
    second = NodeLock()
    second.take()
    second.release()


@pytest.mark.parametrize("name", ["canary", "a-name-that-is-longer-than-any-chain"])
def test_proxies_of_different_names_run_side_by_side(name):
    locks = [NodeLock(), NodeLock(name), NodeLock("another")]
    for lock in locks:
        lock.take()
    with pytest.raises(
        LockHeld, match=f"another userspace-proxy of the name .* .pid {os.getpid()}"
    ):
        NodeLock(name).take()
    for lock in locks:
        lock.release()


@pytest.mark.parametrize("name", [None, ""])
def test_no_name_and_an_empty_one_are_the_same(name):
    lock = NodeLock(name)
    lock.take()
    with pytest.raises(LockHeld, match=r"another userspace-proxy \(pid"):
        NodeLock().take()
    lock.release()


def test_who_runs_is_told_by_label_and_process(holder):
    canary = NodeLock("canary")
    canary.take()
    assert running_proxies() == {"": holder.pid, "canary": os.getpid()}
    canary.release()
    assert running_proxies() == {"": holder.pid}
