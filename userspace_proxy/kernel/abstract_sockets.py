"""Opens abstract Unix sockets, through which processes of the proxy find and trust each other.

Like rules and routes, these sockets belong to a network namespace, which containers may share; the
kernel removes a socket when its process exits. Any user can bind any name, so a socket is trusted
only if root, or this process's user, listens on it (SO_PEERCRED). That isn't sufficient, because
root in a container may have no capabilities: the listener also proves that it has CAP_NET_ADMIN
(``name_proofs``), and so does a client whose request changes which process serves the node
(``net_admin_proof``).

Rule 1: other users also choose names, so names are bytes whose content isn't trusted.
Rule 2: other users can keep a listener's queue full. If they do, the kernel is asked for the
listener's owner, and the listener is trusted if the kernel doesn't report one.
Rule 3: a process without CAP_NET_ADMIN can't prove its name, so such processes check only the user.

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
from . import name_proofs
from .net_admin_proof import Prover
from .netlink.socket_users import user_of_listener

_SOCKETS = Path("/proc/thread-self/net/unix")
_CREDENTIALS = struct.Struct("3i")
QUEUE = 1024
"""The maximum number of connections that wait to be accepted. Any user may connect: filling this
queue takes more descriptors than a process has by default, and emptying it takes some 50 ms."""
# How long to retry connecting, and the pause between attempts: the queue may be full until the
# event loop accepts connections, or the socket may be bound but not listening yet.
_ANSWER_S = 0.5
_PAUSE_S = 0.002
# The maximum number of connections accepted per call; accepting that many takes half a millisecond.
_ACCEPTED_A_TURN = 64


class ProvenSocket(socket.socket):
    """A Unix stream socket bound to an abstract name, and the sockets that prove who owns it.

    The caller calls ``listen()``.

    Args:
        name: The name; begins with a zero byte.

    Raises:
        OSError: No descriptor is left, or the name or a proof's port ID is taken (EADDRINUSE).
    """

    def __init__(self, name: str) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.name_proofs: tuple[socket.socket, ...] = ()
        """Sockets that prove the name, copied with the listener; empty without CAP_NET_ADMIN."""
        try:
            self.setblocking(False)
            self.name_proofs = name_proofs.open_name_proofs(name[1:].encode())
            self.bind(name)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the proofs, then the socket. Idempotent."""
        for name_proof in self.name_proofs:
            name_proof.close()
        super().close()


def shown_names(pattern: str) -> Iterator[re.Match[bytes]]:
    """Return a pattern's matches with the names (``@NAME``) of this network namespace's sockets.

    Unproved names are omitted if this process can prove names. Names occur repeatedly: an accepted
    socket has its listener's name. Raises OSError if no descriptor is left.
    """
    found = re.finditer(rf" {pattern}$".encode(), _SOCKETS.read_bytes(), re.MULTILINE)
    if not name_proofs.can_prove():
        return found
    proven = name_proofs.ProvenNames()
    return (match for match in found if match[0][2:] in proven)


def find_listeners(names: Iterable[str]) -> dict[str, int]:
    """Return the pid of the trusted process that listens on each name.

    The pid is 0 if the process isn't in a visible PID namespace, or if its queue stays full. Names
    without a trusted listener are omitted. Blocks for up to half a second.
    """
    found = dict[str, int]()
    for name, sock in connect_each(names, _ANSWER_S, listens_soon=True):
        with sock or contextlib.nullcontext():
            found[name] = peer(sock)[0] if sock else 0
    return found


def connect_each(
    names: Iterable[str], within_s: float, *, listens_soon: bool = False
) -> Iterator[tuple[str, Prover | None]]:
    """Yield the names of trusted listeners, each with the connection that :func:`connect` returns.

    Listeners whose queue stays full are last, with None.

    Args:
        within_s: The maximum seconds for which the iteration blocks until listeners are ready.
        listens_soon: Whether to wait also for names on which no socket listens yet.
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
    """Return a non-blocking stream socket, connected to a trusted listener.

    Raises:
        PermissionError: The listener belongs to another user, or hasn't proved its name.
        BlockingIOError: The listener's queue is full.
        OSError: No socket listens on the name, or no descriptor is left.
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
        # Check the peer after connecting: before that, another process may have owned the name.
        if not (is_trusted(sock) and _is_believed(name)):
            raise _not_trusted(name)
        stack.pop_all()
    return sock


def _not_trusted(name: str) -> PermissionError:
    return PermissionError(f"a process that isn't trusted listens on {name[1:]}")


def _is_believed(name: str) -> bool:
    return name[1:].encode() in name_proofs.ProvenNames() or not name_proofs.can_prove()


def _is_others(name: str) -> bool:
    """Return whether the owner of a listener with a full queue is certainly not trusted."""
    if not _is_believed(name):
        return True
    try:
        user = user_of_listener(name.encode())
    except OSError:
        return False
    return user is not None and user not in (0, os.geteuid())


def accept(listener: socket.socket, most: int) -> list[socket.socket]:
    """Accept and return at most ``most`` connections of trusted processes; the caller closes them.

    Connections of untrusted processes are closed. Each call accepts a limited number.
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
    """Return whether root or this process's user owns the other end of a connected socket."""
    return peer(sock)[1] in (0, os.geteuid())


def peer(sock: socket.socket) -> tuple[int, int]:
    """Return the pid (0 if it isn't visible) and uid of a connected socket's other end."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return pid, uid
