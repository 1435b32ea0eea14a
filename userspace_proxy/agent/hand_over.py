"""Hands over a node from one control process to the next, while the workers serve.

    next process    asks over the lock's socket ▶ proves CAP_NET_ADMIN ▶ takes the lock
                    ▶ adopts the workers' sockets ▶ serves ▶ reports that over the same connection
                    ▶ has the old workers drain
    this process    asked: becomes a program that waits for that report, then for its workers, and
                    exits 0; without the report it takes the node back (``agent.take_back``);
                    if that program can't start: answers with the cause, and keeps the node
                    SIGUSR1: exits 0 at once
                    killed: the same, so that a crash needs no code of its own

Rule 1: nothing is removed, so rules, routes and sockets are what the next process finds.
Rule 2: the next process asks once it has checked what it can without the node.
Rule 3: a process that is asked isn't replaced by an exit: in a container its exit would end the
workers, too. Executing another program releases what it held: all its descriptors close on exec.
Rule 4: root isn't enough to be handed the node: in a container of the host's network it may have no
capability, and mustn't end this process, or get clients' data, so it proves CAP_NET_ADMIN.

Source: docs/adr/0026, 0049, 0050.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from ..errors import LockHeld, UserspaceProxyError
from ..kernel import net_admin_proof
from ..log_limit import LogLimit
from ..plane import Plane
from ..plane.adoption import Predecessors
from ..plane.rendezvous import connect_to_workers
from ..steering import proxy_label
from .lock import NodeLock, connect_to_holder
from .options import Options
from .sync import SyncLoop
from .tasks import pause

_log = logging.getLogger("userspace_proxy.agent")

HandOverTo = Callable[[socket.socket], object]

_REQUEST, _PROVE, _PROVED = b"hand over\n", b"prove\n", b"proved\n"
OVER, SERVES = b"over\n", b"serves\n"
_REQUEST_BYTES = 16
_NEEDS_PROOF = (
    "hands over only to a process that proves NET_ADMIN, which another version of userspace-proxy"
    " doesn't do: stop the running one, then start that version"
)
_NOT_PROVED = "hands over only to a process that has NET_ADMIN"
# Of the answer if it refuses.
_REFUSAL_BYTES = 1000
# The holder's event loop may be in a large change.
_ANSWER_S = 10.0
# Between the end of that connection and of the lock.
_RELEASE_S = 1.0
_PAUSE_S = 0.005
# Processes that connect and request nothing are gone within milliseconds.
_MAX_ASKING = 16
# How long connections of a killed process's workers may last: as long as an idle one.
CRASH_DRAIN_S = 24 * 3600.0
_LOOK_S = 0.05
# For workers to reset their connections and exit.
END_S = 5.0


class TakenOver:
    """A node that another process has handed over, and waits for a report about.

    Args:
        pid: That process's, 0 if it isn't visible.
        connection: Where it waits; None: it doesn't, as an earlier version.
    """

    def __init__(self, pid: int, connection: socket.socket | None) -> None:
        self.pid = pid
        self._connection = connection

    def report_serving(self) -> None:
        """Report that this process serves: the other one won't take the node back. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with connection, contextlib.suppress(OSError):
                connection.sendall(SERVES)

    def is_awaited(self) -> bool:
        """Return whether the other process would take the node back if this one ended."""
        if self._connection is None:
            return False
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


def ask_to_hand_over(proxy_name: str | None) -> TakenOver | None:
    """Have the running proxy of this name hand over the node; None if no proxy runs.

    Raises:
        LockHeld: It doesn't hand over; the message contains the cause.
    """
    found = connect_to_holder(proxy_name)
    if found is None:
        return None
    sock, pid = found
    answer = b""
    with contextlib.ExitStack() as stack:
        stack.enter_context(sock)
        sock.settimeout(_ANSWER_S)
        try:
            answer = _request(sock)
        except ConnectionError:
            pass
        except TimeoutError as exc:
            raise LockHeld(
                f"cannot take over: userspace-proxy (pid {pid}) does not answer",
                hint="see its log; kill it to take over its workers",
            ) from exc
        except OSError as exc:
            raise LockHeld(
                f"cannot prove NET_ADMIN to userspace-proxy (pid {pid}): {exc.strerror}",
                hint="run as root and grant NET_ADMIN",
            ) from exc
        if answer == OVER:
            stack.pop_all()
            sock.setblocking(False)
            return TakenOver(pid, sock)
    if answer:
        raise LockHeld(
            f"cannot take over: userspace-proxy (pid {pid}) {answer.decode(errors='replace')}",
            hint="end it with SIGUSR1, or kill it, to take over its workers",
        )
    until = time.monotonic() + _RELEASE_S
    while (still := connect_to_holder(proxy_name)) is not None:
        still[0].close()
        if time.monotonic() >= until:
            # It refused; its log contains the reason.
            break
        select.select([], [], [], _PAUSE_S)
    return TakenOver(pid, None)


def _request(sock: socket.socket) -> bytes:
    """Request the node, and prove what the holder asks for.

    Returns:
        ``OVER``, or its refusal; empty if it only ended the connection.
    """
    answer = b""
    sock.sendall(_REQUEST)
    while answer != OVER and len(answer) < _REFUSAL_BYTES:
        text, descriptors, *_ = socket.recv_fds(sock, _REFUSAL_BYTES, 1)
        if descriptors:
            with socket.socket(fileno=descriptors[0]) as challenge:
                net_admin_proof.answer(challenge, sock)
            sock.sendall(_PROVED)
        elif text:
            answer += text
        else:
            # An earlier version releases all its descriptors at about the same moment.
            break
    return answer


class HandOverRequests:
    """Answers processes that connect to the lock's socket.

    Args:
        lock: It is held.
        hand_over: Called with the connection when a process with CAP_NET_ADMIN requests the node;
            it raises UserspaceProxyError if that isn't possible. None: requests are refused.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lock: NodeLock,
        hand_over: HandOverTo | None,
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._hand_over = hand_over
        self._asking: dict[socket.socket, socket.socket | None] = {}
        """Processes that connect, with the challenge of one that has requested the node."""
        self._log_limit = LogLimit()
        loop.add_reader(lock.fileno(), self._accept)

    def close(self) -> None:
        """Answer no more. Idempotent."""
        self._loop.remove_reader(self._lock.fileno())
        while self._asking:
            self._hang_up(next(iter(self._asking)))

    def _accept(self) -> None:
        for sock in self._lock.accept():
            sock.setblocking(False)
            self._asking[sock] = None
            self._loop.add_reader(sock.fileno(), self._read, sock)
            if len(self._asking) > _MAX_ASKING:
                self._hang_up(next(iter(self._asking)))

    def _read(self, sock: socket.socket) -> None:
        try:
            request = sock.recv(_REQUEST_BYTES)
        except OSError:
            request = b""
        challenge = self._asking[sock]
        if self._hand_over is None:
            self._hang_up(sock)
        elif request == _REQUEST and challenge is None:
            self._challenge(sock)
        elif request == _PROVED and challenge is not None:
            self._try(sock, challenge, self._hand_over)
        else:
            self._hang_up(sock)

    def _challenge(self, sock: socket.socket) -> None:
        """Have a process prove the capability."""
        if not net_admin_proof.can_prove(sock):
            self._refuse(sock, _NEEDS_PROOF)
            return
        try:
            challenge = self._asking[sock] = net_admin_proof.open_challenge()
            socket.send_fds(sock, [_PROVE], [challenge.fileno()])
        except OSError as exc:
            self._refuse(sock, f"cannot have it proved that a process has NET_ADMIN: {exc}")

    def _try(
        self,
        sock: socket.socket,
        challenge: socket.socket,
        hand_over: Callable[[socket.socket], object],
    ) -> None:
        if not net_admin_proof.is_answered(challenge, sock):
            self._refuse(sock, _NOT_PROVED)
            return
        try:
            hand_over(sock)
        except UserspaceProxyError as exc:
            self._refuse(sock, str(exc))
        else:
            self._hang_up(sock)

    def _refuse(self, sock: socket.socket, cause: str) -> None:
        if self._log_limit.take(self._loop.time()):
            _log.error("cannot hand over the node: %(cause)s", extra={"cause": cause})
        with contextlib.suppress(OSError):
            sock.send(cause.encode()[:_REFUSAL_BYTES])
        self._hang_up(sock)

    def _hang_up(self, sock: socket.socket) -> None:
        challenge = self._asking.pop(sock)
        if challenge is not None:
            challenge.close()
        self._loop.remove_reader(sock.fileno())
        sock.close()


def worker_label(options: Options) -> str | None:
    """Return the label by which the next process finds workers; None if they end with this one."""
    return None if options.hand_over is None else proxy_label(options.proxy_name or "")


async def adopt(label: str, stack: AsyncExitStack) -> Predecessors | None:
    """Adopt the sockets of the last control process's workers; None if there are none."""
    socks = connect_to_workers(label)
    if not socks:
        return None
    predecessors = Predecessors(asyncio.get_running_loop(), socks)
    # If this process fails to start, they continue to wait for one that does.
    stack.callback(predecessors.close)
    count = await predecessors.adopt()
    extra = {"workers": len(predecessors), "sockets": count}
    _log.info("adopted the sockets of workers that still serve", extra=extra)
    return predecessors


async def end_workers(label: str) -> None:
    """End the workers that a killed control process left."""
    until = time.monotonic() + END_S
    while socks := connect_to_workers(label):
        if time.monotonic() > until:
            _log.error("a worker does not end", extra={"count": len(socks)})
        else:
            # They obey a process that has been handed their sockets.
            predecessors = Predecessors(asyncio.get_running_loop(), socks)
            await predecessors.adopt()
            predecessors.end()
            await pause(_LOOK_S)
            continue
        for sock in socks:
            sock.close()
        return


async def relieve(
    predecessors: Predecessors | None, sync: SyncLoop, plane: Plane, options: Options
) -> None:
    """Have predecessors drain once all Services are served by this process's workers.

    Before, this process reports that it serves.
    """
    await sync.settled()
    while not plane.has_all_workers:
        await pause(_LOOK_S)
    # They have applied everything that was sent before when they answer.
    await plane.refresh()
    if options.report_serving is not None:
        options.report_serving()
    if predecessors is None:
        return
    drain_s = options.predecessor_drain_s
    predecessors.drain(drain_s)
    _log.info("workers of the last process accept no more connections", extra={"drain_s": drain_s})
