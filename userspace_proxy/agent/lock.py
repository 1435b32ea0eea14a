"""The node's lock: one proxy per network namespace and ``--service-proxy-name``.

    userspace-proxy, userspace-proxy/NAME      the socket on which a proxy listens
    userspace-proxy#…, userspace-proxy/NAME#…  likewise, if another user has bound that name

The lock is an abstract Unix socket: it belongs to a network namespace, as rules and routes do, in
all containers, and the kernel releases it with the process. Any user can bind any such name, so a
socket counts only if root, or this process's user, listens on it (SO_PEERCRED).

Rule 1: a proxy listens first and looks for others afterwards, so of two one sees the other.
Rule 2: other users choose names, too: names are bytes, and nothing in them is trusted.

Source: unix(7); net/unix/af_unix.c, init_peercred() at listen() and unix_seq_show(). ADR 0016.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from ..errors import LockHeld
from ..steering import proxy_label

_NAME = "\0userspace-proxy"
_SOCKETS = Path("/proc/thread-self/net/unix")
# How that file shows a name: with @ for the first byte, at the end of the line.
_SHOWN = re.compile(
    rb" @(userspace-proxy(?:/(?P<label>[A-Za-z0-9._~-]+))?(?:#[0-9a-f]+)?)$", re.MULTILINE
)
_CREDENTIALS = struct.Struct("3i")
# A proxy's queue may be full until its event loop accepts, and it binds before it listens.
_ANSWER_S = 0.5
_PAUSE_S = 0.01
_ANSWERS_A_TURN = 64


class NodeLock:
    """The lock of one network namespace and proxy name.

    Args:
        proxy_name: The ``--service-proxy-name``: proxies with different names steer different
            Services at the same time. None or empty: the proxy without one.
        is_cleanup: It is taken to clean up, not to start; only the error differs.
    """

    def __init__(self, proxy_name: str | None = None, *, is_cleanup: bool = False) -> None:
        self._is_cleanup = is_cleanup
        self._label = proxy_label(proxy_name or "")
        self._name = f"{_NAME}/{self._label}" if self._label else _NAME
        self._socket: socket.socket | None = None

    def take(self) -> None:
        """Take the lock until :meth:`release`, or until this process ends.

        Raises:
            LockHeld: Another proxy has it; the message names its process.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            mine = self._bind(sock)
            sock.listen()
            others = [name for name, label in _shown_names() if label == self._label]
            self._refuse(_ask(name for name in others if name != mine).values())
        except BaseException:
            sock.close()
            raise
        self._socket = sock

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when another process asks for the holder.

        Call :meth:`answer` then: the kernel's queue is short.
        """
        return -1 if self._socket is None else self._socket.fileno()

    def answer(self) -> None:
        """Close connections of processes that ask; the kernel has answered them already."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                for _ in range(_ANSWERS_A_TURN):
                    self._socket.accept()[0].close()

    def release(self) -> None:
        """Release the lock; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _bind(self, sock: socket.socket) -> str:
        """Bind the lock's name, or another one if an untrusted user has it; return it."""
        name = self._name
        try:
            sock.bind(name)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            self._refuse(_ask([name]).values())
            # No other user can predict this name and bind it, too.
            name = f"{name}#{secrets.token_hex(8)}"
            sock.bind(name)
        return name

    def _refuse(self, pids: Iterable[int]) -> None:
        """Raise if there is such a process: it has the lock."""
        for pid in pids:
            named = f" of the name {self._label}" if self._label else ""
            process = f" (pid {pid})" if pid else ""
            running = f"userspace-proxy{named}{process}"
            if self._is_cleanup:
                raise LockHeld(
                    f"cannot clean up: {running} steers this node and would restore its rules",
                    hint="stop it: it removes its rules when it stops",
                )
            raise LockHeld(
                f"cannot start: another {running} steers this node",
                hint="stop it first, or run with --steering=none",
            )


def running_proxies() -> dict[str, int]:
    """Return the proxies whose lock is in this network namespace: label → pid, 0 if unknown."""
    names = dict(_shown_names())
    return {names[name]: pid for name, pid in _ask(names).items()}


def _shown_names() -> list[tuple[str, str]]:
    """Return the names of all sockets that may be locks, with the labels in them."""
    found = _SHOWN.finditer(_SOCKETS.read_bytes())
    # Accepted sockets have the name of the one that listens.
    names = {match[1].decode(): (match["label"] or b"").decode() for match in found}
    return [(f"\0{name}", label) for name, label in names.items()]


def _ask(names: Iterable[str]) -> dict[str, int]:
    """Return the pid of the trusted process that listens on each of these names.

    It is 0 if its PID namespace isn't visible from here. Names without such a process are left
    out.
    """
    waiting, found = set(names), {}
    until = time.monotonic() + _ANSWER_S
    while True:
        for name in list(waiting):
            listener = _listener(name)
            if listener is not None:
                waiting.remove(name)
                pid, uid = listener
                if uid in (0, os.geteuid()):
                    found[name] = pid
        if not waiting or time.monotonic() >= until:
            return found
        select.select([], [], [], _PAUSE_S)


def _listener(name: str) -> tuple[int, int] | None:
    """Return pid and uid of a name's listener; None if there is none, or its queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(name)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return None
    pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return pid, uid
