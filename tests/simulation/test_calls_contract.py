"""``dataplane.calls`` on both kernels: results, and errors as numbers below 0."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from userspace_proxy.dataplane import calls as module
from userspace_proxy.dataplane.calls import SystemCalls

from .systems import RealSystem, System
from .test_kernel_contract import fill, reset, state_of

IN, OUT, ERR, HUP, ET = (
    select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP, select.EPOLLET,
)  # fmt: skip


@pytest.fixture
def calls(system: System, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemCalls]:
    if not isinstance(system, RealSystem):
        others = {"F_SETPIPE_SZ": fcntl.F_SETPIPE_SZ, "fcntl": system.os.fcntl}
        monkeypatch.setattr(module, "os", SimpleNamespace(**{**vars(os), **vars(system.os)}))
        monkeypatch.setattr(module, "fcntl", SimpleNamespace(**others))
        monkeypatch.setattr(module, "select", SimpleNamespace(epoll=system.epoll))
        of_kernel = {**vars(_socket), "socket": lambda _family, _kind, _, fd: system.socket_of(fd)}
        monkeypatch.setattr(module, "_socket", SimpleNamespace(**of_kernel))
    calls = SystemCalls(1000)
    yield calls
    calls.close_epoll()


def pair(system: System, calls: SystemCalls) -> tuple[int, Any]:
    """Return the descriptor of one end of a connection, and the other end's socket."""
    left, right = system.pair()
    return calls.adopt(left), right


def test_received_bytes_are_sent_from_the_buffer(system: System, calls: SystemCalls) -> None:
    left, right = pair(system, calls)
    assert calls.receive(left) == -errno.EAGAIN
    right.send(b"question")
    system.until(lambda: state_of(system, calls.socket(left)) & IN)
    assert calls.receive(left) == 8
    assert bytes(calls.read_part(2, 8)) == b"estion"
    assert calls.send(left, 5, 0) == 5
    assert calls.send_bytes(left, memoryview(b"ion")) == 3
    system.until(lambda: state_of(system, right) & IN)
    system.settle()
    assert right.recv(1000) == b"question"


def test_a_read_stops_at_the_buffer_size(system: System, calls: SystemCalls) -> None:
    small = SystemCalls(3)
    left, right = pair(system, small)
    right.send(b"question")
    system.until(lambda: state_of(system, small.socket(left)) & IN)
    system.settle()
    assert [small.receive(left), small.receive(left), small.buffer_bytes] == [3, 3, 3]
    assert bytes(small.read_part(0, 3)) == b"sti"
    small.close_epoll()


def test_a_fin_is_read_as_0_and_a_reset_as_an_errno(system: System, calls: SystemCalls) -> None:
    left, right = pair(system, calls)
    right.shutdown(_socket.SHUT_WR)
    system.until(lambda: state_of(system, calls.socket(left)) & IN)
    assert calls.receive(left) == 0
    assert calls.shut_down(left) == 0
    other, peer = pair(system, calls)
    reset(peer)
    system.until(lambda: state_of(system, calls.socket(other)) & ERR)
    assert calls.receive(other) == -errno.ECONNRESET
    assert calls.send(other, 1, 0) == -errno.EPIPE
    assert calls.send_bytes(other, memoryview(b"x")) == -errno.EPIPE
    assert calls.shut_down(other) == -errno.ENOTCONN


def test_take_error_clears_the_error_of_a_socket(system: System, calls: SystemCalls) -> None:
    left, right = pair(system, calls)
    reset(right)
    system.until(lambda: state_of(system, calls.socket(left)) & ERR)
    assert [calls.take_error(left), calls.take_error(left)] == [errno.ECONNRESET, 0]


def test_a_full_sink_accepts_no_bytes(system: System, calls: SystemCalls) -> None:
    left, _ = pair(system, calls)
    fill(system, calls.socket(left))
    assert calls.send(left, 100, 0) == -errno.EAGAIN
    assert calls.send_bytes(left, memoryview(b"x")) == -errno.EAGAIN


def test_clients_are_accepted_with_their_addresses(system: System, calls: SystemCalls) -> None:
    listening, address = system.listener()
    listener = calls.adopt(listening)
    assert calls.accept(listener) == (-errno.EAGAIN, None)
    client = system.dial(address)
    system.until(lambda: state_of(system, listening) & IN)
    with system.no_descriptors():
        assert calls.accept(listener)[0] == -errno.EMFILE
    fd, source = calls.accept(listener)
    assert source[:2] == client.getsockname()[:2]
    assert calls.socket(fd).fileno() == fd
    assert calls.receive(fd) == -errno.EAGAIN, "a read blocks"
    calls.close(fd)
    system.until(lambda: state_of(system, client) & select.EPOLLRDHUP)
    calls.disown(listener)
    calls.disown(listener)
    assert listening.fileno() == listener, "the owner's descriptor was closed"


def test_socket_options_are_set(system: System, calls: SystemCalls) -> None:
    left, _ = pair(system, calls)
    assert calls.set_option(left, _socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1) == 0


def test_spliced_bytes_can_be_read_from_the_pipe(system: System, calls: SystemCalls) -> None:
    left, right = pair(system, calls)
    read_end, write_end = calls.open_pipe(4096)
    assert calls.splice(left, write_end, 9) == -errno.EAGAIN
    right.send(b"abcdef")
    system.until(lambda: state_of(system, calls.socket(left)) & IN)
    system.settle()
    count = calls.splice(left, write_end, 9)
    assert count > 0
    assert calls.splice(read_end, left, 1) == 1
    system.until(lambda: state_of(system, right) & IN)
    assert right.recv(9) == b"a"
    left_over = b""
    while len(left_over) < count - 1:
        left_over += calls.read_pipe(read_end, 9)
    assert left_over == b"abcdef"[1:count]
    calls.close(read_end)
    calls.close(write_end)


def test_open_pipe_without_descriptors_returns_emfile(system: System, calls: SystemCalls) -> None:
    with system.no_descriptors():
        assert calls.open_pipe(4096) == (-errno.EMFILE, -1)


def test_events_are_reported_until_the_descriptor_is_unwatched(
    system: System, calls: SystemCalls
) -> None:
    left, right = pair(system, calls)
    assert calls.watch(left, IN | ET) == 0
    assert calls.wait(8) == []
    right.send(b"x")
    system.until(lambda: state_of(system, calls.socket(left)) & IN)
    assert [calls.wait(8), calls.wait(8)] == [[(left, IN)], []]
    calls.change_watch(left, IN | OUT)
    assert calls.wait(8) == [(left, IN | OUT)]
    calls.unwatch(left)
    assert calls.wait(8) == []
