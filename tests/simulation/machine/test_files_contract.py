"""Ports and Unix sockets behave on both kernels as the control half expects."""

from __future__ import annotations

import array
import contextlib
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from userspace_proxy.plane import reuseport

from ..timeline import Timeline
from . import seam
from .files import CONTROL, UnixEnd
from .machine import Machine, Process, Speed

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
REUSE_ADDRESS = socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
REUSE_PORT = socket.SOL_SOCKET, socket.SO_REUSEPORT, 1
# SO_BINDTOIFINDEX, and the index of an interface that doesn't exist.
DEAF = socket.SOL_SOCKET, 62, 0x7FFFFFFF

Open = Callable[..., Any]


def _real(stack: contextlib.ExitStack) -> SimpleNamespace:
    def pair() -> tuple[Any, ...]:
        ends = socket.socketpair()
        for end in ends:
            stack.enter_context(end).setblocking(False)
        return ends

    def reach(ip: str, at: Any, socks: Sequence[Any]) -> Any:
        with socket.socket(socket.AF_INET, UDP) as client:
            client.bind((ip, 0))
            client.sendto(b"hello", at)
        (reached,) = select.select(socks, [], [], 0)[0]
        reached.recv(100)
        return reached

    return SimpleNamespace(
        socket=lambda kind: socket.socket(socket.AF_INET, kind),
        pair=pair,
        reach=reach,
        choose=reuseport.choose_by_client,
    )


def _simulated(stack: contextlib.ExitStack) -> SimpleNamespace:
    machine = Machine(Timeline(), Random(1), Speed())
    process = Process(machine, CONTROL, "control")
    stack.enter_context(process)

    def pair() -> tuple[Any, ...]:
        ends = UnixEnd(process, 4096), UnixEnd(process, 4096)
        ends[0].join(ends[1])
        return tuple(map(process.kernel.open_unix, ends))

    def reach(ip: str, at: Any, socks: Sequence[Any]) -> Any:
        machine._reach_node(b"hello", (ip, 5000), at, 64)
        (reached,) = [sock for sock in socks if sock.core.shared.queue]
        reached.core.shared.queue.clear()
        return reached

    return SimpleNamespace(
        socket=lambda kind: process.kernel.socket(socket.AF_INET, kind),
        pair=pair,
        reach=reach,
        choose=seam._choose,
    )


@pytest.fixture(params=[_real, _simulated], ids=["real", "simulated"])
def system(request: pytest.FixtureRequest) -> Iterator[SimpleNamespace]:
    with contextlib.ExitStack() as stack:
        yield request.param(stack)


@pytest.fixture
def bind(system: SimpleNamespace) -> Iterator[Open]:
    """Return a function that opens a socket on a free port, or on the port of ``beside``."""
    with contextlib.ExitStack() as stack:

        def bind(kind: int, *options: tuple[int, int, int], beside: Any = None) -> Any:
            sock = stack.enter_context(system.socket(kind))
            for option in options:
                sock.setsockopt(*option)
            sock.bind(("127.0.0.1", 0) if beside is None else beside.getsockname())
            return sock

        yield bind


def in_use() -> contextlib.AbstractContextManager[object]:
    return pytest.raises(OSError, match="in use")


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_a_second_socket_cannot_bind_a_port_in_use(bind: Open, kind: int) -> None:
    first = bind(kind)
    with in_use():
        bind(kind, beside=first)
    with in_use():
        bind(kind, REUSE_PORT, beside=first)


@pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
def test_sockets_with_reuse_port_share_a_port(bind: Open, kind: int) -> None:
    first = bind(kind, REUSE_PORT)
    second = bind(kind, REUSE_PORT, beside=first)
    if kind == TCP:
        for each in (first, second):
            each.listen(5)
    assert first.getsockname() == second.getsockname()


@pytest.mark.parametrize("leaves", ["is deaf", "is closed"])
def test_the_last_reuse_port_socket_takes_the_index_of_one_that_leaves(
    system: SimpleNamespace, bind: Open, leaves: str
) -> None:
    first = bind(UDP, REUSE_PORT)
    at = first.getsockname()
    others = [bind(UDP, REUSE_PORT, beside=first) for _ in range(4)]
    if leaves == "is deaf":
        first.setsockopt(*DEAF)
    else:
        first.close()
    in_order = [others[-1], *others[:-1]]
    for count in (4, 2):
        system.choose(others[0], socket.AF_INET, count)
        for number in range(1, 9):
            reached = system.reach(f"127.0.0.{number}", at, others)
            assert others.index(reached) == others.index(in_order[number % count])


def test_the_port_of_a_detached_socket_cannot_be_bound(bind: Open) -> None:
    first = bind(UDP)
    first.setsockopt(*DEAF)
    with in_use():
        bind(UDP, beside=first)


def test_a_detached_socket_cannot_send(bind: Open) -> None:
    first, other = bind(UDP), bind(UDP)
    assert first.sendto(b"hello", other.getsockname()) == len(b"hello")
    first.setsockopt(*DEAF)
    with pytest.raises(OSError, match="No such device"):
        first.sendto(b"hello", other.getsockname())


def test_a_second_socket_cannot_bind_a_listening_port(bind: Open) -> None:
    first = bind(TCP, REUSE_ADDRESS)
    first.listen(5)
    with in_use():
        bind(TCP, REUSE_ADDRESS, beside=first)


@pytest.mark.parametrize("may_reuse", [True, False], ids=["with", "without"])
def test_a_port_can_be_bound_after_shutdown_only_with_reuse_address(
    bind: Open, may_reuse: bool
) -> None:
    # On shutdown, the kernel releases a port that it chose itself. So ``first`` binds a given port,
    # which the kernel chose for ``probe``.
    probe = bind(TCP, REUSE_ADDRESS)
    first = bind(TCP, REUSE_ADDRESS, beside=probe)
    first.listen(5)
    first.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match="not connected"):
        first.shutdown(socket.SHUT_RDWR)
    probe.close()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(may_reuse))
    if may_reuse:
        second = bind(TCP, REUSE_ADDRESS, beside=first)
        second.listen(5)
    else:
        with in_use():
            bind(TCP, REUSE_ADDRESS, beside=first)
        first.listen(5)


def _rights(sock: Any) -> list[Any]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))]


def _read(end: Any) -> tuple[bytes, int]:
    """Return received bytes, and the number of descriptors that came with them."""
    data, ancillary, _, _ = end.recvmsg(100, socket.CMSG_SPACE(40))
    count = sum(len(rights) // 4 for _, _, rights in ancillary)
    return data, count


def test_bytes_after_passed_descriptors_need_another_read(
    system: SimpleNamespace, bind: Open
) -> None:
    ours, theirs = system.pair()
    port = bind(TCP)
    ours.sendmsg([b"a"])
    ours.sendmsg([b"b"], _rights(port))
    ours.sendmsg([b"c"])
    ours.sendmsg([b"d"])
    assert [_read(theirs), _read(theirs)] == [(b"ab", 1), (b"cd", 0)]
    with pytest.raises(BlockingIOError):
        _read(theirs)


def test_bytes_sent_before_a_close_are_read(system: SimpleNamespace) -> None:
    ours, theirs = system.pair()
    ours.sendmsg([b"last"])
    ours.close()
    assert [_read(theirs), _read(theirs)] == [(b"last", 0), (b"", 0)]
    with pytest.raises(BrokenPipeError):
        theirs.sendmsg([b"?"], [], socket.MSG_NOSIGNAL)


def test_a_port_is_in_use_while_it_is_in_flight(system: SimpleNamespace, bind: Open) -> None:
    ours, theirs = system.pair()
    port = bind(TCP)
    ours.sendmsg([b"x"], _rights(port))
    name = port.getsockname()
    port.close()
    with in_use():
        bind(TCP, beside=SimpleNamespace(getsockname=lambda: name))
    theirs.close()
    again = bind(TCP, beside=SimpleNamespace(getsockname=lambda: name))
    assert again.getsockname() == name
