"""Abstract Unix sockets, by which processes of the proxy find each other.

They belong to a network namespace, as rules and routes do, in all containers, and the kernel
removes them with their process. Any user can bind any name, so a socket counts only if root, or
this process's user, listens on it (SO_PEERCRED). For a request that changes who serves the node,
that user isn't enough: the process that connects proves a capability (``net_admin_proof``).

Rule 1: other users choose names, too: names are bytes, and nothing in them is trusted.

Source: unix(7); net/unix/af_unix.c, init_peercred() at listen() and unix_seq_show().
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import net_admin_proof

_SOCKETS = Path("/proc/thread-self/net/unix")
_CREDENTIALS = struct.Struct("3i")
# A listener's queue may be full until its event loop accepts, and it is bound before it listens.
_ANSWER_S = 0.5
_PAUSE_S = 0.01


def shown_names(pattern: str) -> Iterator[re.Match[bytes]]:
    """Yield matches of a pattern with the names of all sockets here; the names begin with ``@``.

    Accepted sockets have the name of the one that listens.
    """
    return re.finditer(rf" {pattern}$".encode(), _SOCKETS.read_bytes(), re.MULTILINE)


def find_listeners(names: Iterable[str]) -> dict[str, int]:
    """Return the pid of the trusted process that listens on each of these names.

    It is 0 if its PID namespace isn't visible from here. Names without such a process are left
    out.
    """
    waiting, found = set(names), {}
    until = time.monotonic() + _ANSWER_S
    while True:
        for name in list(waiting):
            try:
                sock = connect(name)
            except PermissionError:
                waiting.remove(name)
            except OSError:
                continue
            else:
                with sock:
                    waiting.remove(name)
                    found[name] = peer(sock)[0]
        if not waiting or time.monotonic() >= until:
            return found
        select.select([], [], [], _PAUSE_S)


def connect(name: str) -> socket.socket:
    """Return a non-blocking stream socket that is connected to a trusted listener.

    Raises:
        PermissionError: A process of another user listens.
        OSError: There is no listener, or its queue is full.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        net_admin_proof.bind_prover(sock)
        sock.connect(name)
    except BaseException:
        sock.close()
        raise
    if not is_trusted(sock):
        sock.close()
        raise PermissionError(f"a process of another user listens on {name[1:]}")
    return sock


def is_trusted(sock: socket.socket) -> bool:
    """Return whether the other end of a connected socket is root's, or this process's user's."""
    return peer(sock)[1] in (0, os.geteuid())


def peer(sock: socket.socket) -> tuple[int, int]:
    """Return pid and uid of the process at the other end of a connected socket."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return pid, uid
