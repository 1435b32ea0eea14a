"""The lock is per network namespace; it is released however its owner dies."""

import contextlib
import os
import socket
import sys
import threading

import pytest

from tests.processes import started
from tests.users import OTHER_UID, as_another_user
from userspace_proxy.agent.lock import NodeLock, connect_to_holder, running_proxies
from userspace_proxy.errors import LockHeld
from userspace_proxy.kernel import abstract_sockets

HOLD = """
import sys
import threading
from userspace_proxy.agent.lock import NodeLock, running_proxies
lock = NodeLock()
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


def close_all(socks):
    for sock in socks:
        sock.close()


@pytest.fixture
def lock():
    """The lock, held by this process."""
    lock = NodeLock()
    lock.take()
    yield lock
    lock.release()


@pytest.fixture
def strangers():
    """Yield a function that binds names, and listens on them as the user nobody."""
    with contextlib.ExitStack() as stack:

        def bind(*names, listens=True):
            for name in names:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                sock.bind(name)
                if listens:
                    # The kernel records the owner of the socket when it begins to listen.
                    os.seteuid(OTHER_UID)
                    sock.listen()
                    os.seteuid(0)
            return sock

        yield bind


@pytest.fixture
def holder():
    """Another process that holds the lock."""
    with started([sys.executable, "-c", HOLD]) as process:
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_proxy_is_rejected_with_the_first_proxys_pid(holder):
    with pytest.raises(LockHeld) as caught:
        NodeLock().take()
    assert str(caught.value) == (
        f"cannot start: another userspace-proxy (pid {holder.pid}) steers this node "
        "(start it with --take-over to relieve that one, or stop that one first)"
    )


def test_a_rejected_cleanup_names_the_running_proxy_to_stop(holder):
    with pytest.raises(LockHeld) as caught:
        NodeLock(is_cleanup=True).take()
    assert str(caught.value) == (
        f"cannot clean up: userspace-proxy (pid {holder.pid}) steers this node and would restore "
        f"its rules (stop it: it removes its rules when it stops)"
    )


def test_a_killed_proxy_releases_its_lock(holder):
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
def test_a_proxy_without_a_name_has_the_same_lock_as_one_with_an_empty_name(name):
    lock = NodeLock(name)
    lock.take()
    with pytest.raises(LockHeld, match=r"another userspace-proxy \(pid"):
        NodeLock().take()
    lock.release()


def test_running_proxies_are_listed_by_label_and_pid(holder):
    canary = NodeLock("canary")
    canary.take()
    assert running_proxies() == {"": holder.pid, "canary": os.getpid()}
    canary.release()
    assert running_proxies() == {"": holder.pid}


@as_another_user
@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize("label", ["", "canary"])
def test_another_users_socket_with_the_lock_name_is_ignored(label, listens, strangers):
    strangers("\0userspace-proxy" + (f"/{label}" if label else ""), listens=listens)
    assert running_proxies() == {}
    lock = NodeLock(label)
    lock.take()
    assert running_proxies() == {label: os.getpid()}
    with pytest.raises(LockHeld, match=f"pid {os.getpid()}"):
        NodeLock(label).take()
    lock.release()
    assert running_proxies() == {}


@as_another_user
def test_a_proxy_holding_the_alternative_lock_name_is_found(strangers):
    stranger = strangers("\0userspace-proxy")
    lock = NodeLock()
    lock.take()
    stranger.close()
    with pytest.raises(LockHeld, match=f"pid {os.getpid()}"):
        NodeLock().take()
    lock.release()
    again = NodeLock()
    again.take()
    again.release()


def test_a_running_proxy_is_found_despite_a_briefly_full_queue(lock):
    is_over = threading.Event()

    def answer():
        while not is_over.is_set():
            close_all(abstract_sockets.accept(lock.listener, 64))

    with contextlib.ExitStack() as stack:
        fill(stack)
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises(LockHeld, match=f"pid {os.getpid()}"):
                NodeLock().take()
        finally:
            is_over.set()
            thread.join()


def fill(stack, name="\0userspace-proxy"):
    """Fill the accept queue of the lock's listener; return how many connections fit."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            asker = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            asker.setblocking(False)
            asker.connect(name)
            count += 1
    return count


def test_a_running_proxy_is_found_despite_a_lastingly_full_queue(lock):
    with contextlib.ExitStack() as stack:
        # This is more than the default descriptor limit of another user's process.
        assert fill(stack) > 1000
        with pytest.raises(LockHeld, match=r"another userspace-proxy steers this node"):
            NodeLock().take()
        with pytest.raises(LockHeld, match="stays full"):
            connect_to_holder(None, 0.01)


@as_another_user
def test_another_users_full_queue_does_not_prevent_startup():
    with contextlib.ExitStack() as stack:
        os.seteuid(OTHER_UID)
        try:
            stranger = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            stranger.bind("\0userspace-proxy")
            stranger.listen(1)
        finally:
            os.seteuid(0)
        fill(stack)
        assert connect_to_holder(None) is None
        lock = NodeLock()
        lock.take()
        found, _ = connect_to_holder(None)
        found.close()
        lock.release()
