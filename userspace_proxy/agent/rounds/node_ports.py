"""Reserves node ports and the refuse port, so that rules never capture a daemon's traffic.

Rule-based steering redirects a node port's packets to a proxy port, without a listener on the node
port itself. A daemon that holds the node port, or binds it later, would go unnoticed. The agent
therefore binds a socket to it:

- TCP: the bound socket doesn't listen, so the kernel refuses clients that bypass the rules, as on
  an unused port.
- UDP: a bound socket would swallow datagrams that bypass the rules, so it is bound to a missing
  interface (``listening_sockets``), and the kernel refuses the clients.

Rule 1: a port counts as held if a process waits for clients on it, even on a single address.
Rule 2: otherwise the proxy takes the port, even if binding fails because connections use or used
its number, or for lack of descriptors or privileges. Binding is retried.
Rule 3: a port that rules of an earlier run still redirect belonged to the proxy when that run
ended. A process listening on it bound it later, and gets no clients: rules take precedence.

Source: net/ipv4/inet_connection_sock.c, inet_bind_conflict().
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Set
from typing import NamedTuple

from ...errors import ListenError
from ...kernel.listening_sockets import get_nothing
from ...kernel.port_holders import HeldPort, PortHolder, held_ports, owners_of
from ...log_fields import FieldLogger
from ...model import Frontend, FrontendKind, IPFamily, Protocol

_log = FieldLogger("userspace_proxy.agent")

_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
# The minimum interval between searches, in seconds: searching the descriptors of all processes
# takes up to 0.25 s on a busy node, and the result is used only in messages.
LOOK_EVERY_S = 10.0
# The number of ports retried at once, which takes 1 ms if a privilege is missing for all ports.
_BOUND_AGAIN = 100
# The kernel's default range of ephemeral ports, which holds no fixed ports of daemons and Services.
_ELSEWHERE = range(32768, 61000)
# Sockets are bound in this order, until one fails.
_REFUSING = [(protocol, family) for family in IPFamily for protocol in Protocol]


class NodePort(NamedTuple):
    """One node port of one family."""

    protocol: Protocol
    family: IPFamily
    port: int


class NodePortReservations:
    """Reserves one proxy's node ports, in the network namespace of the calling thread."""

    def __init__(self) -> None:
        self._held: dict[NodePort, socket.socket] = {}
        self._unbound: dict[NodePort, None] = {}
        """Ports that the proxy may use although it couldn't bind them (Rules 2 and 3); the port
        tried last is at the end."""
        self._claimed: set[NodePort] = set()
        """The ports that rules of an earlier run redirect (Rule 3)."""
        self._uses: Counter[NodePort] = Counter()
        """The number of Service ports that use each node port."""
        self._unused: set[NodePort] = set()
        self._owners: dict[Protocol, Mapping[int, PortHolder]] = {}
        self._looked: dict[Protocol, float] = {}

    def claim(self, ports: Iterable[NodePort]) -> None:
        """Record that rules of an earlier run steer these node ports (Rule 3)."""
        self._claimed.update(ports)

    def take(self, port: NodePort, *, now: float) -> str:
        """Reserve a node port; idempotent.

        Args:
            port: The node port, which the proxy keeps until :meth:`release`.
            now: Monotonic seconds; processes are searched at most every :data:`LOOK_EVERY_S`.

        Returns:
            Empty if the proxy may use the port; otherwise the reason why not, in one line.
        """
        if port in self._held:
            return ""
        sock = hold_port(port)
        if sock is None:
            holder = self.holder(port.protocol, port.family, (port.port,), now=now)
            if holder and port in self._claimed:
                if port not in self._unbound:
                    _log.warning(
                        "node port %(port)s was taken by %(holder)s while no proxy was running; "
                        "clients are still served",
                        extra={"port": f"{port.port}/{port.protocol}", "holder": holder},
                    )
            elif holder:
                self._unbound.pop(port, None)
                return f"node port {port.port}/{port.protocol} is held by {holder}"
        self._keep(port, sock)
        return ""

    def _keep(self, port: NodePort, sock: socket.socket | None) -> None:
        self._unbound.pop(port, None)
        if sock is None:
            self._unbound[port] = None
        else:
            self._held[port] = sock

    def bind_again(self) -> None:
        """Try again to bind some of the ports that couldn't be bound; call this once a second."""
        for port in list(itertools.islice(self._unbound, _BOUND_AGAIN)):
            self._keep(port, hold_port(port))

    def take_all(self, frontends: Iterable[Frontend], *, now: float) -> dict[Frontend, str]:
        """Reserve the node ports among frontends, as :meth:`take` does.

        Returns:
            The reason for each frontend whose port couldn't be reserved.
        """
        causes = {
            f: self.take(NodePort(f.protocol, f.family, f.port), now=now)
            for f in frontends
            if f.kind is FrontendKind.NODE_PORT
        }
        return {frontend: why for frontend, why in causes.items() if why}

    def release(self, port: NodePort) -> None:
        """Release a node port; idempotent."""
        self._claimed.discard(port)
        self._unbound.pop(port, None)
        sock = self._held.pop(port, None)
        if sock is not None:
            sock.close()

    def count_uses(self, before: Set[NodePort], now: Set[NodePort]) -> None:
        """Record the node ports that a Service port used before, and uses now."""
        self._uses.update(now - before)
        for port in before - now:
            self._unused.add(port)
            self._uses[port] -= 1
            if not self._uses[port]:
                del self._uses[port]

    def release_unused(self) -> None:
        """Release the node ports that no Service port uses."""
        for port in self._unused - self._uses.keys():
            self.release(port)
        self._unused.clear()

    def close(self) -> None:
        """Release all node ports; idempotent."""
        for port in [*self._held, *self._unbound]:
            self.release(port)

    def holder(
        self, protocol: Protocol, family: IPFamily, ports: Collection[int], *, now: float
    ) -> str:
        """Return a process that listens on one of these ports: ``nginx (pid 812)``.

        The ports needn't be node ports. Returns ``another process`` if the last search found no
        owner of the socket, and an empty string if there is no such process.
        """
        holders = [
            held for held in held_ports(protocol) if held.port in ports and family in held.families
        ]
        return self._named(protocol, holders, now) if holders else ""

    def _named(self, protocol: Protocol, holders: Collection[HeldPort], now: float) -> str:
        inodes = {held.inode for held in holders}
        looked = self._looked.get(protocol)
        is_due = looked is None or now - looked >= LOOK_EVERY_S
        if is_due:
            # Look up all owners at once, because a process may hold a hundred node ports.
            self._owners[protocol] = owners_of({held.inode for held in held_ports(protocol)})
            self._looked[protocol] = now
        owners = self._owners[protocol]
        return next((str(owners[i]) for i in sorted(inodes) if i in owners), "another process")


def node_ports(frontends: Iterable[Frontend]) -> set[NodePort]:
    """Return the node ports among these frontends."""
    return {
        NodePort(f.protocol, f.family, f.port)
        for f in frontends
        if f.kind is FrontendKind.NODE_PORT
    }


def hold_port(key: NodePort) -> socket.socket | None:
    """Return a socket that reserves a port; None if it can't be opened or bound."""
    family = socket.AF_INET6 if key.family is IPFamily.IPV6 else socket.AF_INET
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(socket.socket(family, _KINDS[key.protocol]))
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Don't set SO_REUSEADDR: if a daemon's socket also set it, both could share the port.
            sock.bind(("", key.port))
            if key.protocol is Protocol.UDP:
                get_nothing(sock)
        except OSError:
            return None
        stack.pop_all()
    return sock


class RefusePort:
    """The refuse port of one proxy, from the end of the proxy port range if a port is free there.

    The port is reserved without a listener, for both protocols and families. For TCP the kernel
    answers clients with a RST. The UDP socket receives nothing: rules reject datagrams that are
    steered to the port, and the kernel rejects all other datagrams.
    """

    def __init__(self) -> None:
        self.number = 0
        """The port's number; 0 before :meth:`open`."""
        self._sockets = contextlib.ExitStack()

    def open(self, first: int, last: int) -> int:
        """Reserve the highest free port of the range, and return it.

        If other programs use the whole range, a port of 32768–60999 is taken: any user can bind
        unprivileged ports, which mustn't prevent a proxy from starting.

        Raises:
            ListenError: No port in either range is free.
        """
        families = [family for family in IPFamily if _has_family(family)]
        for port in itertools.chain(range(last, first - 1, -1), reversed(_ELSEWHERE)):
            with contextlib.ExitStack() as stack:
                for protocol, family in _REFUSING:
                    if family in families:
                        sock = hold_port(NodePort(protocol, family, port))
                        if sock is None:
                            break
                        stack.enter_context(sock)
                else:
                    self._sockets = stack.pop_all()
                    self.number = port
                    return port
        raise ListenError(
            f"cannot reserve a refuse port: every port of {first}-{last} and of "
            f"{_ELSEWHERE[0]}-{_ELSEWHERE[-1]} is in use",
            hint="see ss -lntup for the programs that hold them",
        )

    def close(self) -> None:
        """Release the port; idempotent."""
        self._sockets.close()


def _has_family(family: IPFamily) -> bool:
    """Return whether a socket of an IP family can be opened and bound; IPv6 may be disabled."""
    kind = socket.AF_INET6 if family is IPFamily.IPV6 else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.bind(("", 0))
    except OSError:
        return False
    return True
