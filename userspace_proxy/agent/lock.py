"""Implements the node's lock: one proxy per network namespace and ``--service-proxy-name``.

    userspace-proxy, userspace-proxy/NAME      the socket on which a proxy listens
    userspace-proxy#…, userspace-proxy/NAME#…  instead, if another program has bound that name

The lock is an abstract Unix socket (``kernel.abstract_sockets``), over which a process asks the
holder to hand over the node (``agent.hand_over``).

Rule 1: a proxy listens first and then searches for others, so at least one of two detects the
other.
Rule 2: a holder must prove its right to the name by CAP_NET_ADMIN (``kernel.name_proofs``).

Source: ADR 0026, ADR 0053.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterable

from ..errors import LockHeld
from ..kernel import abstract_sockets, name_proofs
from ..kernel.abstract_sockets import ProvenSocket
from ..kernel.net_admin_proof import Prover
from ..steering import proxy_label

_NAME = "\0userspace-proxy"
# Matches the names of locks as the kernel lists them.
_SHOWN = r"@(userspace-proxy(?:/(?P<label>[A-Za-z0-9._~-]+))?(?:#[0-9a-f]+)?)"
# The maximum wait for room in the holder's accept queue, which other processes also use.
_ROOM_S = 5.0


class NodeLock:
    """The lock of one network namespace and proxy name.

    Args:
        proxy_name: The ``--service-proxy-name``: proxies with different names steer different
            Services at the same time. None or empty: the unnamed proxy.
        is_cleanup: Whether the lock is taken for a cleanup; only the error differs.
    """

    def __init__(self, proxy_name: str | None = None, *, is_cleanup: bool = False) -> None:
        self._is_cleanup = is_cleanup
        self._label = proxy_label(proxy_name or "")
        self.name = f"{_NAME}/{self._label}" if self._label else _NAME
        """The socket's address; with a suffix (``#…``) if another program has bound this one."""
        self.listener: ProvenSocket | None = None
        """The listening socket while the lock is held, otherwise None; accept its connections to
        keep room in the kernel's queue.

        A process that only checks whether the lock is held expects no answer."""

    def take(self) -> None:
        """Take the lock until :meth:`release`, or until this process exits.

        Raises:
            LockHeld: Another proxy holds the lock; the message names its process if it is visible.
            OSError: The socket can't be opened.
        """
        mine, sock = self._open()
        try:
            sock.listen(abstract_sockets.QUEUE)
            others = [name for name, label in _shown_names() if label == self._label]
            others = [name for name in others if name != mine]
            self._refuse(abstract_sockets.find_listeners(others).values())
        except BaseException:
            sock.close()
            raise
        self.listener = sock

    def release(self) -> None:
        """Release the lock; idempotent."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    def _open(self) -> tuple[str, ProvenSocket]:
        """Bind a socket to the lock's name, or to a random name if another program has bound it."""
        try:
            return self.name, ProvenSocket(self.name)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
        self._refuse(abstract_sockets.find_listeners([self.name]).values())
        # Other programs can't predict this name, so they can't bind it or the sockets of its
        # proofs.
        name = f"{self.name}#{secrets.token_hex(8)}"
        return name, ProvenSocket(name)

    def _refuse(self, pids: Iterable[int]) -> None:
        """If there are processes, raise LockHeld, which names the first as the lock's holder."""
        for pid in pids:
            named = f" of the name {self._label}" if self._label else ""
            process = f" (pid {pid})" if pid else ""
            running = f"userspace-proxy{named}{process}"
            if self._is_cleanup:
                raise LockHeld(
                    f"cannot clean up: {running} steers this node and would restore its rules",
                    hint="stop it: it removes its rules when it stops",
                )
            if name_proofs.can_prove():
                hint = "start it with --take-over to relieve that one, or stop that one first"
            else:
                # The holder may be any process of this user, not necessarily a proxy.
                hint = "stop it first, if it is one, or run with --steering=none"
            raise LockHeld(f"cannot start: another {running} steers this node", hint=hint)


def running_proxies() -> dict[str, int]:
    """Return the proxies that hold a lock in this network namespace: label → pid, 0 if unknown."""
    names = dict(_shown_names())
    return {names[name]: pid for name, pid in abstract_sockets.find_listeners(names).items()}


def connect_to_holder(
    proxy_name: str | None, within_s: float = _ROOM_S
) -> tuple[Prover, int] | None:
    """Return a connection to the lock's holder, and its pid; None if there is no holder.

    The pid is 0 if the holder's PID namespace isn't visible to this process.

    Raises:
        LockHeld: The holder's queue stays full for ``within_s`` seconds.
    """
    label = proxy_label(proxy_name or "")
    names = [name for name, shown in _shown_names() if shown == label]
    for _, sock in abstract_sockets.connect_each(names, within_s):
        if sock is None:
            raise LockHeld(
                "cannot take over: the queue of the running userspace-proxy stays full",
                hint="find the processes that keep connecting to it: ss -xp",
            )
        return sock, abstract_sockets.peer(sock)[0]
    return None


def _shown_names() -> list[tuple[str, str]]:
    """Return the names of all sockets that may be locks, with their labels."""
    found = abstract_sockets.shown_names(_SHOWN)
    names = {match[1].decode(): (match["label"] or b"").decode() for match in found}
    return [(f"\0{name}", label) for name, label in names.items()]
