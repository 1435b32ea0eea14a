"""Abstract Unix sockets, by which processes of the proxy find each other.

They belong to a network namespace, as rules and routes do, in all containers, and the kernel
removes them with their process. Any user can bind any name, so a socket counts only if root, or
this process's user, listens on it (SO_PEERCRED). That isn't enough, as root in a container may have
no capability: the listener vouches for the name (``vouchers``), and for a request that changes
who serves the node, the process that connects proves CAP_NET_ADMIN, too (``net_admin_proof``).

Rule 1: other users choose names, too: names are bytes, and nothing in them is trusted.
Rule 2: other users keep queues full, too: the user of such a socket is what the kernel shows, and
counts as trusted if it doesn't.
Rule 3: a process without CAP_NET_ADMIN can't vouch, so it trusts the user alone, as its like must.

Source: unix(7); net/unix/af_unix.c, init_peercred() at listen() and unix_seq_show().
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..clocks import Clocks
from . import vouchers
from .net_admin_proof import Prover
from .netlink.socket_users import user_of_listener

_SOCKETS = Path("/proc/thread-self/net/unix")
_CREDENTIALS = struct.Struct("3i")
QUEUE = 1024
"""Connections that wait to be accepted. Any user may connect: that many take more descriptors than
a process has by default, and some 50 ms to be accepted."""
# A listener's queue may be full until its event loop accepts, and it is bound before it listens.
_ANSWER_S = 0.5
_PAUSE_S = 0.002
# Half a millisecond.
_ACCEPTED_A_TURN = 64


class VouchedSocket(socket.socket):
    """A Unix stream socket with an abstract name, and vouchers for it; it doesn't listen yet.

    Args:
        name: It begins with a zero.

    Raises:
        OSError: There is no descriptor left, or the name or a voucher is taken (EADDRINUSE).
    """

    def __init__(self, name: str) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.vouchers: tuple[socket.socket, ...] = ()
        """A copy of the listener needs copies of them; none if this process can't vouch."""
        try:
            self.setblocking(False)
            self.vouchers = vouchers.open_vouchers(name[1:].encode())
            self.bind(name)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it, and the vouchers before. Idempotent."""
        for voucher in self.vouchers:
            voucher.close()
        super().close()


def shown_names(pattern: str) -> Iterator[re.Match[bytes]]:
    """Yield matches of a pattern with the names of sockets here; the names begin with ``@``.

    Those that no process vouches for are left out. Accepted sockets have the name of the one that
    listens.
    """
    found = re.finditer(rf" {pattern}$".encode(), _SOCKETS.read_bytes(), re.MULTILINE)
    if not vouchers.can_vouch():
        return found
    vouched = vouchers.Vouched()
    return (match for match in found if match[0][2:] in vouched)


def find_listeners(names: Iterable[str]) -> dict[str, int]:
    """Return the pid of the trusted process that listens on each of these names.

    It is 0 if its PID namespace isn't visible from here, or if its queue stays full. Names without
    such a process are left out.
    """
    found = dict[str, int]()
    for name, sock in connect_each(names, _ANSWER_S, listens_soon=True):
        with sock or contextlib.nullcontext():
            found[name] = peer(sock)[0] if sock else 0
    return found


def connect_each(
    names: Iterable[str], within_s: float, *, listens_soon: bool = False
) -> Iterator[tuple[str, Prover | None]]:
    """Yield the names of trusted listeners, each with a connection as of :func:`connect`.

    None, at the end: its queue stays full.

    Args:
        within_s: How long one is waited for whose queue is full.
        listens_soon: One that is bound and doesn't listen is waited for, too.
    """
    waiting = set(names)
    until = Clocks.monotonic() + within_s
    while True:
        full = []
        for name in sorted(waiting):
            try:
                sock = connect(name)
            except BlockingIOError:
                full.append(name)
            except OSError as exc:
                if isinstance(exc, PermissionError) or not listens_soon:
                    waiting.remove(name)
            else:
                waiting.remove(name)
                yield name, sock
        if not waiting or Clocks.monotonic() >= until:
            break
        select.select([], [], [], _PAUSE_S)
    for name in full:
        yield name, None


def connect(name: str) -> Prover:
    """Return a non-blocking stream socket that is connected to a trusted listener.

    Raises:
        PermissionError: A process of another user listens, or one that doesn't vouch for the name.
        BlockingIOError: Its queue is full.
        OSError: There is no listener.
    """
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(Prover())
        sock.setblocking(False)
        try:
            sock.connect(name)
        except BlockingIOError:
            if _is_others(name):
                raise _not_trusted(name) from None
            raise
        # After connecting: another process may have had the name before.
        if not (is_trusted(sock) and _is_believed(name)):
            raise _not_trusted(name)
        stack.pop_all()
    return sock


def _not_trusted(name: str) -> PermissionError:
    return PermissionError(f"a process that isn't trusted listens on {name[1:]}")


def _is_believed(name: str) -> bool:
    return name[1:].encode() in vouchers.Vouched() or not vouchers.can_vouch()


def _is_others(name: str) -> bool:
    """Return whether a socket whose queue is full isn't trusted, as far as the kernel tells."""
    if not _is_believed(name):
        return True
    try:
        user = user_of_listener(name.encode())
    except OSError:
        return False
    return user is not None and user not in (0, os.geteuid())


def accept(listener: socket.socket, most: int) -> list[socket.socket]:
    """Return connections of trusted processes, at most that many; the caller closes them.

    Those of other users are closed, at most some in a call.
    """
    trusted: list[socket.socket] = []
    with contextlib.suppress(OSError):
        for _ in range(_ACCEPTED_A_TURN):
            if len(trusted) >= most:
                break
            sock = listener.accept()[0]
            if is_trusted(sock):
                trusted.append(sock)
            else:
                sock.close()
    return trusted


def is_trusted(sock: socket.socket) -> bool:
    """Return whether the other end of a connected socket is root's, or this process's user's."""
    return peer(sock)[1] in (0, os.geteuid())


def peer(sock: socket.socket) -> tuple[int, int]:
    """Return pid and uid of the process at the other end of a connected socket."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return pid, uid
