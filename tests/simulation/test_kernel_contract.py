"""Behaviour that the data plane relies on: the same tests for the simulated and the real kernel.

``system.pair()`` returns both ends of a TCP connection, of which the data plane may have either.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import struct
from typing import Any

import pytest

from userspace_proxy.kernel.tcp_state import since_sent_s

from .systems import System

IN, OUT, PRI, ET = select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI, select.EPOLLET
ERR, HUP, RDHUP = select.EPOLLERR, select.EPOLLHUP, select.EPOLLRDHUP
ALL = IN | OUT | PRI | RDHUP | ET
_RESET = struct.pack("ii", 1, 0)
# From linux/socket.h, because the module socket lacks it.
_MSG_MORE = 0x8000
_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


def read(sock: Any, most: int = 1000) -> bytes:
    """Return the bytes that recv_into reads."""
    buffer = bytearray(most)
    return bytes(buffer[: sock.recv_into(memoryview(buffer))])


def error_of(call: Any, *args: Any) -> int:
    """Return the errno that a call raises; 0 for none."""
    try:
        call(*args)
    except OSError as exc:
        return exc.errno or -1
    return 0


def reset(sock: Any) -> None:
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
    sock.close()


def pending(sock: Any) -> int:
    return int(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR))


def state_of(system: System, sock: Any) -> int:
    """Return all events that hold now."""
    return system.events_of(sock)


def fill(system: System, sock: Any) -> int:
    """Write until the buffer is full; return the number of written bytes."""
    total = 0
    while True:
        try:
            total += sock.send(bytes(65536))
        except BlockingIOError:
            system.settle()
            if not state_of(system, sock) & OUT:
                return total


def test_reading_an_empty_socket_fails_with_eagain(system: System) -> None:
    left, _ = system.pair()
    assert error_of(read, left) == errno.EAGAIN
    assert state_of(system, left) == OUT


def test_a_short_read_returns_all_available_bytes(system: System) -> None:
    left, right = system.pair()
    right.send(b"abc")
    right.send(b"def")
    system.until(lambda: state_of(system, left) & IN)
    system.settle()
    assert read(left) == b"abcdef"
    assert error_of(read, left) == errno.EAGAIN


def test_bytes_sent_with_msg_more_are_held_back(system: System) -> None:
    left, right = system.pair()
    left.send(b"abc", _MSG_MORE)
    assert error_of(read, right) == errno.EAGAIN
    left.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    system.until(lambda: state_of(system, right) & IN)
    assert read(right) == b"abc"


def test_bytes_held_by_msg_more_are_sent_with_further_bytes_or_a_fin(system: System) -> None:
    left, right = system.pair()
    left.send(b"abc", _MSG_MORE)
    left.send(b"def")
    system.until(lambda: state_of(system, right) & IN)
    system.settle()
    assert read(right) == b"abcdef"
    left.send(b"ghi", _MSG_MORE)
    left.shutdown(_socket.SHUT_WR)
    system.until(lambda: state_of(system, right) & RDHUP)
    assert read(right) == b"ghi"


def test_a_fin_follows_the_last_byte_and_can_be_read_repeatedly(system: System) -> None:
    left, right = system.pair()
    right.send(b"abc")
    right.shutdown(_socket.SHUT_WR)
    system.until(lambda: state_of(system, left) & RDHUP)
    assert state_of(system, left) == IN | OUT | RDHUP
    assert [read(left), read(left), read(left)] == [b"abc", b"", b""]
    left.send(b"still")
    system.until(lambda: state_of(system, right) & IN)
    assert read(right) == b"still"


def test_after_both_fins_the_socket_is_no_longer_connected(system: System) -> None:
    left, right = system.pair()
    right.shutdown(_socket.SHUT_WR)
    system.until(lambda: state_of(system, left) & RDHUP)
    left.getpeername()
    left.shutdown(_socket.SHUT_WR)
    system.until(lambda: state_of(system, left) & HUP)
    system.until(lambda: state_of(system, right) & HUP)
    for sock in (left, right):
        assert state_of(system, sock) == IN | OUT | RDHUP | HUP
        assert error_of(sock.getpeername) == errno.ENOTCONN
        assert error_of(sock.shutdown, _socket.SHUT_WR) == errno.ENOTCONN
        assert pending(sock) == 0


def test_bytes_received_before_a_reset_are_read_before_the_error(system: System) -> None:
    left, right = system.pair()
    right.send(b"abc")
    system.until(lambda: state_of(system, left) & IN)
    reset(right)
    system.until(lambda: state_of(system, left) & ERR)
    assert state_of(system, left) == IN | OUT | RDHUP | HUP | ERR
    assert error_of(left.getpeername) == errno.ENOTCONN
    assert read(left) == b"abc"
    assert error_of(read, left) == errno.ECONNRESET
    assert read(left) == b"", "the error is reported once"


def test_after_a_reset_a_write_fails_and_a_read_returns_no_bytes(system: System) -> None:
    left, right = system.pair()
    reset(right)
    system.until(lambda: state_of(system, left) & ERR)
    assert error_of(left.send, b"x") == errno.ECONNRESET
    assert error_of(left.send, b"x") == errno.EPIPE
    assert read(left) == b""
    assert error_of(left.shutdown, _socket.SHUT_WR) == errno.ENOTCONN
    assert state_of(system, left) == IN | OUT | RDHUP | HUP


def test_after_a_fin_no_read_reports_a_reset(system: System) -> None:
    left, right = system.pair()
    right.shutdown(_socket.SHUT_WR)
    system.until(lambda: state_of(system, left) & RDHUP)
    reset(right)
    system.until(lambda: state_of(system, left) & ERR)
    assert read(left) == b""
    assert pending(left) == errno.EPIPE
    assert pending(left) == 0


def test_closing_with_unread_bytes_sends_a_reset(system: System) -> None:
    left, right = system.pair()
    right.send(b"abc")
    system.until(lambda: state_of(system, left) & IN)
    left.close()
    system.until(lambda: state_of(system, right) & ERR)
    assert error_of(read, right) == errno.ECONNRESET


def test_closing_without_unread_bytes_sends_a_fin_and_later_bytes_are_reset(system: System) -> None:
    left, right = system.pair()
    left.send(b"abc")
    left.close()
    system.until(lambda: state_of(system, right) & RDHUP)
    assert [read(right), read(right)] == [b"abc", b""]
    right.send(b"late")
    system.until(lambda: state_of(system, right) & ERR)
    assert pending(right) == errno.EPIPE


def test_a_full_sink_accepts_no_more_bytes_and_later_reports_room_once(system: System) -> None:
    left, right = system.pair()
    epoll = system.epoll()
    fill(system, left)
    epoll.register(left.fileno(), ALL)
    assert epoll.poll(0, 8) == []
    system.drain(right)
    system.until(lambda: state_of(system, left) & OUT)
    assert epoll.poll(0, 8) == [(left.fileno(), OUT)]
    assert epoll.poll(0, 8) == []
    epoll.close()


def test_an_unacknowledged_fin_counts_as_one_byte(system: System) -> None:
    left, right = system.pair()
    assert system.unacknowledged(left) == 0
    fill(system, left)
    before = system.unacknowledged(left)
    assert before > 0
    left.shutdown(_socket.SHUT_WR)
    assert system.unacknowledged(left) == before + 1

    def is_acknowledged() -> bool:
        system.drain(right)
        return system.unacknowledged(left) == 0

    system.until(is_acknowledged)


def test_edge_triggering_reports_once_and_level_triggering_until_read(system: System) -> None:
    left, right = system.pair()
    epoll = system.epoll()
    epoll.register(left.fileno(), IN | ET)
    right.send(b"abc")
    system.until(lambda: state_of(system, left) & IN)
    assert [epoll.poll(0, 8), epoll.poll(0, 8)] == [[(left.fileno(), IN)], []]
    epoll.modify(left.fileno(), IN)
    assert epoll.poll(0, 8) == epoll.poll(0, 8) == [(left.fileno(), IN)]
    read(left)
    assert epoll.poll(0, 8) == []
    epoll.close()


def test_an_edge_triggered_event_is_not_reported_after_its_bytes_were_read(system: System) -> None:
    left, right = system.pair()
    epoll = system.epoll()
    epoll.register(left.fileno(), IN | ET)
    right.send(b"abc")
    system.until(lambda: state_of(system, left) & IN)
    read(left)
    assert epoll.poll(0, 8) == []
    epoll.close()


def test_an_epoll_event_includes_all_current_states_of_the_socket(system: System) -> None:
    left, right = system.pair()
    epoll = system.epoll()
    epoll.register(left.fileno(), ALL)
    assert epoll.poll(0, 8) == [(left.fileno(), OUT)]
    right.send(b"abc")
    system.until(lambda: state_of(system, left) & IN)
    right.shutdown(_socket.SHUT_WR)
    system.until(lambda: state_of(system, left) & RDHUP)
    assert epoll.poll(0, 8) == [(left.fileno(), IN | OUT | RDHUP)]
    assert epoll.poll(0, 8) == []
    epoll.modify(left.fileno(), IN | ET)
    assert epoll.poll(0, 8) == [(left.fileno(), IN)], "what holds is reported again"
    epoll.unregister(left.fileno())
    assert epoll.poll(0, 8) == []
    epoll.close()


def test_closing_a_socket_removes_it_from_epoll(system: System) -> None:
    left, right = system.pair()
    epoll = system.epoll()
    epoll.register(left.fileno(), ALL)
    right.send(b"abc")
    system.until(lambda: state_of(system, left) & IN)
    left.close()
    assert epoll.poll(0, 8) == []
    epoll.close()


def test_a_shutdown_reports_an_event_on_its_own_side(system: System) -> None:
    left, _ = system.pair()
    epoll = system.epoll()
    epoll.register(left.fileno(), ALL)
    epoll.poll(0, 8)
    left.shutdown(_socket.SHUT_WR)
    assert epoll.poll(0, 8) == [(left.fileno(), OUT)]
    epoll.close()


def test_events_beyond_the_maximum_are_reported_by_the_next_poll(system: System) -> None:
    pairs = [system.pair() for _ in range(3)]
    epoll = system.epoll()
    for left, _ in pairs:
        epoll.register(left.fileno(), OUT)
    first, second = epoll.poll(0, 2), epoll.poll(0, 2)
    assert (len(first), len(second)) == (2, 2)
    assert {fd for fd, _ in first + second} == {left.fileno() for left, _ in pairs}
    epoll.close()


def test_a_listener_is_reported_as_readable_until_all_clients_are_accepted(system: System) -> None:
    listener, address = system.listener()
    epoll = system.epoll()
    epoll.register(listener.fileno(), IN)
    assert error_of(listener._accept) == errno.EAGAIN
    client = system.dial(address)
    system.until(lambda: epoll.poll(0, 8))
    assert epoll.poll(0, 8) == [(listener.fileno(), IN)]
    accepted, source = system.accept(listener)
    assert source[:2] == client.getsockname()[:2]
    assert accepted.getpeername() == client.getsockname()
    assert epoll.poll(0, 8) == []
    listener.shutdown(_socket.SHUT_RDWR)
    assert epoll.poll(0, 8)[0][1] & HUP
    epoll.close()


def test_a_failed_accept_without_a_free_descriptor_can_be_repeated(system: System) -> None:
    listener, address = system.listener()
    system.dial(address)
    system.until(lambda: state_of(system, listener) & IN)
    with system.no_descriptors():
        assert error_of(listener._accept) == errno.EMFILE
    system.accept(listener)


def test_a_client_reset_in_the_accept_queue_is_accepted(system: System) -> None:
    listener, address = system.listener()
    reset(system.dial(address))
    system.settle()
    accepted, _ = system.accept(listener)
    system.until(lambda: state_of(system, accepted) & ERR)
    assert error_of(accepted.getpeername) == errno.ENOTCONN
    assert error_of(read, accepted) == errno.ECONNRESET


def test_accepted_sockets_inherit_oobinline(system: System) -> None:
    listener, address = system.listener()
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)
    client = system.dial(address)
    system.until(lambda: state_of(system, listener) & IN)
    accepted, _ = system.accept(listener)
    system.send_urgent(client, b"a!")
    system.until(lambda: state_of(system, accepted) & PRI)
    assert read(accepted) + read(accepted) == b"a!"


def test_the_error_of_a_refused_dial_is_reported_once(system: System) -> None:
    listener, address = system.listener()
    listener.close()
    sock = system.socket(_socket.SOCK_STREAM)
    assert sock.connect_ex(address) == errno.EINPROGRESS
    system.until(lambda: state_of(system, sock) & ERR)
    assert state_of(system, sock) == IN | OUT | RDHUP | HUP | ERR
    assert pending(sock) == errno.ECONNREFUSED
    assert pending(sock) == 0


def test_a_pending_dial_is_not_connected_and_reports_no_events(system: System) -> None:
    sock = system.socket(_socket.SOCK_STREAM)
    assert state_of(system, sock) == OUT | HUP
    assert sock.connect_ex(system.silent_address()) == errno.EINPROGRESS
    assert state_of(system, sock) == 0
    assert error_of(sock.getpeername) == errno.ENOTCONN


def test_a_completed_dial_is_writable(system: System) -> None:
    _, address = system.listener()
    sock = system.socket(_socket.SOCK_STREAM)
    assert sock.connect_ex(address) == errno.EINPROGRESS
    system.until(lambda: state_of(system, sock) & OUT)
    assert state_of(system, sock) == OUT
    assert (pending(sock), sock.getpeername()) == (0, address)


@pytest.fixture
def pipe(system: System) -> Any:
    ends = system.os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield ends
    for end in ends:
        system.os.close(end)


def test_splice_fails_with_eagain_on_an_empty_socket_and_returns_0_after_a_fin(
    system: System, pipe: Any
) -> None:
    left, right = system.pair()
    splice = system.os.splice
    assert error_of(lambda: splice(left.fileno(), pipe[1], 9, flags=_SPLICE)) == errno.EAGAIN
    right.send(b"abc")
    right.shutdown(_socket.SHUT_WR)
    system.until(lambda: state_of(system, left) & RDHUP)
    moved = b""
    while splice(left.fileno(), pipe[1], 9, flags=_SPLICE):
        moved += system.os.read(pipe[0], 9)
    assert moved == b"abc"


def test_splice_reports_a_reset(system: System, pipe: Any) -> None:
    left, right = system.pair()
    reset(right)
    system.until(lambda: state_of(system, left) & ERR)
    splice = system.os.splice
    error = error_of(lambda: splice(left.fileno(), pipe[1], 9, flags=_SPLICE))
    assert error == errno.ECONNRESET
    assert splice(left.fileno(), pipe[1], 9, flags=_SPLICE) == 0


def test_splice_stops_at_an_urgent_mark(system: System, pipe: Any) -> None:
    left, right = system.pair()
    left.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)
    system.send_urgent(right, b"!")
    system.until(lambda: state_of(system, left) & PRI)
    splice = system.os.splice
    assert error_of(lambda: splice(left.fileno(), pipe[1], 9, flags=_SPLICE)) == errno.EAGAIN
    right.shutdown(_socket.SHUT_WR)
    system.until(lambda: state_of(system, left) & RDHUP)
    assert splice(left.fileno(), pipe[1], 9, flags=_SPLICE) == 0, "splice() passed the mark"
    assert read(left) == b"!"


def test_a_read_stops_at_an_urgent_mark_and_then_continues(system: System) -> None:
    left, right = system.pair()
    left.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)
    system.send_urgent(right, b"abc!")
    right.send(b"def")
    system.until(lambda: state_of(system, left) & PRI)
    system.settle()
    assert state_of(system, left) == IN | OUT | PRI
    assert read(left) == b"abc"
    assert state_of(system, left) == IN | OUT | PRI
    assert read(left) == b"!def"
    assert state_of(system, left) == OUT


def test_without_oobinline_a_read_skips_urgent_data(system: System) -> None:
    left, right = system.pair()
    system.send_urgent(right, b"abc!")
    right.send(b"def")
    system.until(lambda: state_of(system, left) & PRI)
    system.settle()
    assert [read(left), read(left)] == [b"abc", b"def"]
    assert error_of(read, left) == errno.EAGAIN


def test_a_full_sink_leaves_bytes_in_the_pipe(system: System, pipe: Any) -> None:
    left, right = system.pair()
    other, source = system.pair()
    fill(system, left)
    source.send(b"abc")
    system.until(lambda: state_of(system, other) & IN)
    splice = system.os.splice
    count = splice(other.fileno(), pipe[1], 9, flags=_SPLICE)
    assert error_of(lambda: splice(pipe[0], left.fileno(), 9, flags=_SPLICE)) == errno.EAGAIN
    reset(right)
    system.until(lambda: state_of(system, left) & ERR)
    error = error_of(lambda: splice(pipe[0], left.fileno(), 9, flags=_SPLICE))
    assert error == errno.ECONNRESET
    assert len(system.os.read(pipe[0], 9)) == count


def test_a_socket_reports_the_time_since_its_last_send(system: System) -> None:
    left, right = system.pair()
    system.settle()
    assert left.send(b"question") == 8
    system.until(lambda: system.events_of(right) & IN)
    read(right)
    assert since_sent_s(left) < since_sent_s(right)
    said_before_s = since_sent_s(left)
    right.send(b"answer")
    system.settle()
    assert since_sent_s(left) > said_before_s, "what it receives doesn't count"
    left.shutdown(_socket.SHUT_WR)
    assert since_sent_s(left) > said_before_s, "nor does its FIN"


def test_after_splice_consumed_a_reset_error_a_read_returns_eof(system: System, pipe: Any) -> None:
    left, right = system.pair()
    right.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
    right.close()
    system.until(lambda: system.events_of(left) & ERR)
    splice = system.os.splice
    error = error_of(lambda: splice(left.fileno(), pipe[1], 9, flags=_SPLICE))
    assert error == errno.ECONNRESET
    assert read(left) == b""
