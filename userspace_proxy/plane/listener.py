"""Owns the port of a listener and its sockets, one for each worker that serves the listener.

Rule 1: sockets are opened, and start to listen, in the order of the workers: with affinity the
kernel chooses a socket by index.
Rule 2: a worker's socket outlives the worker: the replacement receives the same socket, and the
clients in its accept queue.
Rule 3: before several sockets share a port, one socket binds the port exclusively, to check that no
other program uses it.
"""

from __future__ import annotations

import _socket
import contextlib
import socket
from collections import Counter, OrderedDict
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from ..errors import ListenError, ShortageError
from ..kernel.listening_sockets import (
    cannot_listen,
    family_of,
    get_nothing,
    hold_port,
    listen_again,
    open_listening,
    share_port,
    stop_listening,
)
from ..kernel.socket_options import set_transparent
from ..kernel.source_filter import admit, cannot_admit
from ..model import Protocol, SocketAddress
from . import reuseport
from .group import Group
from .messages import OpenListener

RESERVE = 512
"""The number of descriptors reserved for everything except listeners: log files, API connections,
requests."""

_OWED_NOTHING: Counter[int] = Counter()


class ListeningSockets:
    """The sockets of one listener: one for each worker of ``workers``, in the order of workers.

    Args:
        inherited: Sockets of the previous control process on this address, which are reused: a new
            socket replaces each None, and surplus sockets are closed, with the clients in their
            queues.

    Raises:
        ListenError: The port can't be bound, or a socket rejects an option or the filter.
    """

    # Cost: each Service port has instances of this class and of Listener.
    __slots__ = (
        "_admits",
        "_by_client",
        "_freebind",
        "_hold",
        "_inherited",
        "_protocol",
        "_transparent",
        "at",
        "socks",
        "workers",
    )

    def __init__(
        self,
        protocol: Protocol,
        at: SocketAddress,
        *,
        freebind: bool,
        workers: Iterable[int],
        transparent: bool = False,
        admits: Sequence[str] | None = None,
        by_client: bool = False,
        inherited: Iterable[socket.socket | None] = (),
    ) -> None:
        self._protocol = protocol
        self._freebind = freebind
        self._transparent = transparent
        self._inherited = tuple(inherited)
        self.workers = tuple(workers)
        """Indexes of the serving workers, even while the listener refuses."""
        self._by_client = by_client
        self._admits = admits
        self.socks: tuple[socket.socket, ...] = ()
        """One socket per worker; empty from :meth:`leave` to :meth:`serve`, and once closed."""
        self._hold: _socket.socket | None = None
        """The socket that reserves a UDP port while it refuses; None if there is none."""
        self.at = at
        self._open()

    def __len__(self) -> int:
        return len(self.workers)

    @property
    def by_worker(self) -> dict[int, socket.socket]:
        return dict(zip(self.workers, self.socks, strict=False))

    def choose(self, *, by_client: bool) -> None:
        """Make the kernel choose a client's socket by the client's address, or at random.

        Raises:
            ShortageError: The kernel can't choose by the address.
        """
        if by_client != self._by_client:
            self._by_client = by_client
            self._choose()

    def admit(self, networks: Sequence[str] | None) -> None:
        """Admit packets from these networks only; None admits all.

        Raises:
            ListenError: The kernel rejects the filter.
        """
        if networks == self._admits:
            return
        for sock in self.socks:
            try:
                admit(sock, networks)
            except OSError as exc:
                raise cannot_admit(self.at, self._protocol, exc) from exc
        self._admits = networks

    def refuse(self) -> None:
        """Refuse clients and keep the port. Idempotent.

        UDP clients are refused once each worker has closed its copy; then call :meth:`leave`.
        """
        self._stop_listening(keeps_port=True)
        if self._protocol is Protocol.UDP and self._hold is None:
            self._hold = hold_port(self.at, self.socks)

    def leave(self) -> None:
        """Close the sockets of a refusing UDP port, but keep the port reserved.

        Copies in workers of the previous control process stop receiving and sending, because the
        kernel would otherwise distribute clients to these copies.
        """
        deaf = [sock for sock in self.socks if _gets_nothing(sock)]
        if self._hold is None and deaf:
            # No new socket could reserve the port (perhaps no descriptor was free), so keep one of
            # the silent sockets.
            self._keep(deaf[0])
        self._close_sockets()

    def serve(self) -> None:
        """Listen again after :meth:`refuse`; UDP sockets are opened if they were closed.

        Raises:
            ListenError: The port can't be opened again, perhaps because another program bound it.
        """
        if self._protocol is Protocol.TCP:
            try:
                listen_again(self.socks, self.at)
                self._choose()
            except ListenError:
                # Clients would wait on a socket that listens, but from which no worker accepts.
                self.refuse()
                raise
            return
        if not self.socks:
            self._open()
        self._end_hold()

    def close(self) -> None:
        """Close the sockets. Idempotent.

        A TCP port refuses immediately and can be bound again, even if workers still hold copies; a
        UDP port can be bound again once workers have closed their copies.
        """
        self._stop_listening(keeps_port=False)
        self._close_sockets()
        self._end_hold()

    def _keep(self, sock: socket.socket) -> None:
        """Try to reserve a UDP port with one of its own sockets, without a further descriptor."""
        with contextlib.suppress(OSError):
            share_port(sock, is_shared=True)
            self._hold = sock
            self.socks = tuple(other for other in self.socks if other is not sock)

    def _close_sockets(self) -> None:
        for sock in self.socks:
            sock.close()
        self.socks = ()

    def _stop_listening(self, *, keeps_port: bool) -> None:
        if self._protocol is Protocol.TCP:
            for sock in self.socks:
                stop_listening(sock, keeps_port=keeps_port)

    def _open(self) -> None:
        is_shared = len(self.workers) > 1
        at = self.at
        try:
            if self._hold is None and is_shared and not self._inherited:
                # No client dials this socket, so it needn't be transparent.
                with wrapped(open_listening(self._protocol, at, freebind=self._freebind)) as alone:
                    at = SocketAddress(at.ip, alone.getsockname()[1])
            socks, known = self._places(is_shared=is_shared), len(self._inherited)
            # Sockets that previous workers haven't handed over yet are replaced last: when such a
            # worker closes its socket, the kernel assigns the index to the socket that was opened
            # last.
            for place in sorted(range(len(socks)), key=lambda n: (socks[n] is None, n < known)):
                sock = socks[place] or self._open_one(at, is_shared=is_shared)
                socks[place] = sock
                self.socks += (sock,)
            self.socks = tuple(filter(None, socks))
            # Replace port 0 by the port that the kernel chose.
            self.at = SocketAddress(at.ip, self.socks[0].getsockname()[1])
            self._choose()
        except BaseException:
            # The socket that reserves a refusing UDP port stays open.
            self._stop_listening(keeps_port=False)
            self._close_sockets()
            raise
        finally:
            for inherited in self._inherited:
                if inherited is not None and inherited not in self.socks:
                    inherited.close()
            self._inherited = ()

    def _open_one(self, at: SocketAddress, *, is_shared: bool) -> socket.socket:
        return wrapped(
            open_listening(
                self._protocol,
                at,
                freebind=self._freebind,
                transparent=self._transparent,
                share=is_shared or self._hold is not None,
                admits=self._admits,
            )
        )

    def _places(self, *, is_shared: bool) -> list[socket.socket | None]:
        """Set this listener's options on the inherited sockets; return them in the workers' order.

        None marks a socket that must be opened.

        Raises:
            ListenError: The kernel rejects an option of an inherited socket.
        """
        found, count = list(self._inherited), len(self.workers)
        if len(found) > count:
            known = [place for place, sock in enumerate(found) if sock is not None]
            found = [found[place] for place in reuseport.order_left(known)]
        found = [*found, *[None] * count][:count]
        try:
            for sock in filter(None, found):
                if is_shared or self._protocol is Protocol.UDP:
                    # A UDP port that was about to refuse is still reserved by a socket: share it.
                    share_port(sock, is_shared=is_shared)
                if self._transparent:
                    set_transparent(sock)
                admit(sock, self._admits)
        except OSError as exc:
            raise cannot_listen(self.at, self._protocol, exc) from exc
        return found

    def _end_hold(self) -> None:
        if self._hold is None:
            return
        self._hold.close()
        self._hold = None
        if len(self.workers) == 1:
            for sock in self.socks:
                share_port(sock, is_shared=False)

    def _choose(self) -> None:
        if len(self.socks) < 2:
            return
        sock = self.socks[0]
        # Linux 6.18.44 rejects this for a socket that no longer listens; serve() does it then.
        if self._protocol is Protocol.TCP and not sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            return
        if not self._by_client:
            reuseport.choose_by_chance(sock)
            return
        try:
            reuseport.choose_by_client(sock, family_of(self.at.ip), len(self.socks))
        except OSError as exc:
            self._by_client = False
            raise ShortageError(
                f"cannot apply session affinity at {self.at}/{self._protocol}",
                cause=exc.strerror or str(exc),
                hint="run with --workers=1",
            ) from exc


def _gets_nothing(sock: socket.socket) -> bool:
    """Prevent a UDP socket from receiving; return False if the kernel can't do that."""
    try:
        get_nothing(sock)
    except OSError:
        return False
    return True


def wrapped(sock: _socket.socket) -> socket.socket:
    """Detach a low-level socket, and return it as an object that can be sent to a worker."""
    made = socket.socket(sock.family, sock.type, sock.proto, sock.detach())
    # The socket would block if an embedding program has called socket.setdefaulttimeout.
    made.setblocking(False)
    return made


class Wanted(NamedTuple):
    """A listener that a group should have."""

    protocol: Protocol
    addresses: Iterable[SocketAddress]
    """The first address that can be bound is used; port 0 means any free port."""
    freebind: bool = False
    """Whether to bind even an address that this node doesn't have (yet)."""
    transparent: bool = False
    """Whether to set IP_TRANSPARENT, which requires CAP_NET_ADMIN or CAP_NET_RAW."""


class Answer(NamedTuple):
    """The open listeners of a group, and why listeners don't serve, by the caller's keys."""

    listeners: dict[Hashable, Listener]
    """The open listeners, including listeners that refuse because they can't serve."""
    errors: dict[Hashable, ListenError | None]
    """Why a listener isn't open, or refuses clients; None if no address was left to try."""


class Listener:
    """One address that clients dial: workers serve them, or the kernel refuses or drops them.

    The caller identifies a listener by its key, and messages by its number. A listener owns its
    sockets, one per serving worker.
    """

    __slots__ = (
        "address",
        "closing",
        "group",
        "is_closed",
        "is_serving",
        "key",
        "number",
        "numbers",
        "protocol",
        "sockets",
        "workers",
    )

    def __init__(
        self,
        key: Hashable,
        number: int,
        group: Group,
        protocol: Protocol,
        sockets: ListeningSockets,
    ) -> None:
        self.key = key
        self.number = number
        self.group = group
        self.protocol = protocol
        self.sockets = sockets
        self.workers = sockets.workers
        """Indexes of the workers that serve the listener."""
        self.numbers = [number]
        """The numbers under which workers may hold its sockets: its own number, and the numbers of
        a listener whose port it took over."""
        self.address = sockets.at
        """The bound address, with the actual port."""
        self.is_serving = True
        """Whether clients are accepted; false while they are refused."""
        self.is_closed = False
        self.closing = _OWED_NOTHING
        """The number of CloseListener confirmations that each worker still owes; a UDP port stays
        in use until all have arrived. Replaced, never modified in place."""

    def opening(self, number: int) -> OpenListener:
        return OpenListener(number, self.group.number, self.protocol, self.address)


class PortPool:
    """The ports of an inclusive range; the port that was freed or tried last is offered last.

    A taken port isn't offered until :meth:`give` returns it; only binding shows whether it is free
    in the kernel. A search costs time per offered port, and nothing if all are taken.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self._spared: frozenset[int] = frozenset()

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    @cached_property
    def _free(self) -> OrderedDict[int, None]:
        """The free ports, created on first use: 60,000 ports take a millisecond."""
        return OrderedDict.fromkeys(range(self.first, self.last + 1))

    @property
    def free(self) -> Collection[int]:
        return self._free.keys()

    def candidates(self, preferred: int | None = None) -> Iterator[int]:
        """Yield each free port once, the preferred port first; omit other ports of :meth:`spare`.

        The caller takes the first port that it can bind. The next search begins after the offered
        ports, because other programs use the ports that the caller couldn't bind.
        """
        if preferred is not None and preferred in self._free:
            yield preferred
        for _ in range(len(self._free)):
            port = next(iter(self._free))
            self._free.move_to_end(port)
            if port not in self._spared and port != preferred:
                yield port

    def take(self, port: int) -> None:
        self._free.pop(port, None)

    def spare(self, ports: Iterable[int]) -> None:
        """Offer these ports only as preferred ports; replaces the ports of the last call."""
        self._spared = frozenset(ports)

    def give(self, port: int) -> None:
        """Record that a port is free. Idempotent."""
        if port in self:
            self._free[port] = None
