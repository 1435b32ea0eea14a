import contextlib
import socket
import threading

from userspace_proxy.plane import worker_sockets
from userspace_proxy.plane.worker_sockets import (
    connect_to_workers,
    open_worker_socket,
    worker_labels,
)


def fill(stack, listener):
    """Fill the queue of a worker socket, which any user can do; return how many connections fit."""
    count = 0
    while True:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.setblocking(False)
        try:
            sock.connect(listener.getsockname())
        except BlockingIOError:
            return count
        count += 1


def test_hundreds_of_foreign_connections_do_not_hide_a_worker():
    with open_worker_socket("a") as listener, contextlib.ExitStack() as stack:
        for _ in range(900):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.connect(listener.getsockname())
        (found,) = connect_to_workers("a")
        found.close()


def test_a_worker_is_found_once_its_accept_queue_has_room(monkeypatch):
    monkeypatch.setattr(worker_sockets, "_QUEUE", 1)
    monkeypatch.setattr(worker_sockets, "_ROOM_S", 60.0)
    with open_worker_socket("a") as sock, contextlib.ExitStack() as stack:
        assert fill(stack, sock) == 2

        def accept():
            """Accept as a worker does after it has noticed the exit of its control process."""
            sock.accept()[0].close()

        timer = threading.Timer(0.05, accept)
        timer.start()
        (found,) = connect_to_workers("a")
        found.close()
        timer.join()


def test_a_worker_whose_accept_queue_is_full_is_skipped(monkeypatch):
    monkeypatch.setattr(worker_sockets, "_QUEUE", 1)
    monkeypatch.setattr(worker_sockets, "_ROOM_S", 0.02)
    with open_worker_socket("a") as sock, contextlib.ExitStack() as stack:
        fill(stack, sock)
        assert connect_to_workers("a") == []


def test_workers_are_found_by_their_proxys_label():
    with contextlib.ExitStack() as stack:
        # A label isn't a pattern: a dot matches only a dot.
        for label in ("", "a.b", "a.b", "aXb"):
            stack.enter_context(open_worker_socket(label))
        found = {label: connect_to_workers(label) for label in ("", "a.b", "aXb", "other")}
        for sock in (sock for socks in found.values() for sock in socks):
            stack.enter_context(sock)
        assert {label: len(socks) for label, socks in found.items()} == {
            "": 1,
            "a.b": 2,
            "aXb": 1,
            "other": 0,
        }
        assert worker_labels() == {"", "a.b", "aXb"}
    assert worker_labels() == set()
    assert connect_to_workers("a.b") == []
