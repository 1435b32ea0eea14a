"""Reserves node ports on the node, so that rules never capture a daemon's traffic.

Rule-based steering redirects a node port's packets to a proxy port, without a listener on the
node port itself. A daemon that holds the node port, or binds it later, would go unnoticed. So the
agent binds a socket there:

- TCP: the socket is bound and doesn't listen, so the kernel refuses clients that bypass the rules,
  as on an unused port.
- UDP: such a socket would swallow datagrams that bypass the rules, so it receives nothing
  (``dataplane.port_hold``), and the kernel refuses the clients.

Rule 1: a port counts as held if a process waits for clients on it, even on only one address.
Rule 2: otherwise the proxy takes the port, even if it can't be bound: connections that use or
used its number prevent that, or a privilege is missing.
Rule 3: a port that rules of an earlier run still redirect was the proxy's when that run ended. A
process that listens there bound it later; it doesn't get the clients, as rules come first.

Source: net/ipv4/inet_connection_sock.c, inet_bind_conflict().
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Collection, Mapping
from typing import NamedTuple

from ..dataplane import get_nothing
from ..kernel.port_holders import HeldPort, held_ports, owners_of
from ..model import IPFamily, Protocol

_log = logging.getLogger("userspace_proxy.agent")

_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
# To look through the descriptors of all processes takes up to 0.25 s on a busy node, and the
# answer is for a person to read.
LOOK_EVERY_S = 10.0


class NodePort(NamedTuple):
    """One node port of one family."""

    protocol: Protocol
    family: IPFamily
    port: int


class NodePortHolds:
    """The node ports that are ours; in the namespace of the thread that takes them."""

    def __init__(self) -> None:
        self._held: dict[NodePort, socket.socket | None] = {}
        """None: it is ours, and the socket couldn't be had."""
        self._ours: set[NodePort] = set()
        """Those of Rule 3."""
        self._owners: dict[Protocol, Mapping[int, str]] = {}
        self._looked: dict[Protocol, float] = {}

    def __len__(self) -> int:
        return len(self._held)

    def claim(self, protocol: Protocol, family: IPFamily, port: int) -> None:
        """Note that rules of an earlier run lead from a node port; it is ours until :meth:`give`.

        Args:
            protocol: TCP or UDP.
            family: IPv4 or IPv6.
            port: Its number.
        """
        self._ours.add(NodePort(protocol, family, port))

    def take(self, protocol: Protocol, family: IPFamily, port: int, *, now: float) -> str:
        """Take a node port; idempotent.

        Args:
            protocol: TCP or UDP.
            family: IPv4 or IPv6.
            port: Its number.
            now: Seconds, monotonic; processes are looked through every
                :data:`LOOK_EVERY_S` at most.

        Returns:
            Empty when it is ours now, until :meth:`give`; else why not, in one line.
        """
        key = NodePort(protocol, family, port)
        if self._held.get(key) is not None:
            return ""
        sock = hold_port(key)
        if sock is None:
            holder = self.holder(protocol, family, (port,), now=now)
            if holder and key in self._ours:
                if key not in self._held:
                    _log.warning(
                        "another process took a node port while no proxy was running, clients are "
                        "still served",
                        extra={"port": f"{port}/{protocol}", "holder": holder},
                    )
            elif holder:
                self._held.pop(key, None)
                return f"node port {port}/{protocol} is held by {holder}"
        self._held[key] = sock
        return ""

    def give(self, protocol: Protocol, family: IPFamily, port: int) -> None:
        """Give a node port back; idempotent."""
        self._ours.discard(NodePort(protocol, family, port))
        sock = self._held.pop(NodePort(protocol, family, port), None)
        if sock is not None:
            sock.close()

    def keep(self, wanted: Collection[tuple[Protocol, IPFamily, int]]) -> None:
        """Give all others back."""
        for key in self._held.keys() - {NodePort(*one) for one in wanted}:
            self.give(*key)

    def close(self) -> None:
        """Give all back; idempotent."""
        self.keep(())

    def holder(
        self, protocol: Protocol, family: IPFamily, ports: Collection[int], *, now: float
    ) -> str:
        """Return a process that has one of these ports, node ports or not: ``nginx (pid 812)``.

        Returns:
            Empty when nobody waits for clients there.
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
            # All at once: whoever has one node port may have a hundred.
            everybody = {held.inode for held in held_ports(protocol)}
            self._owners[protocol] = owners_of(everybody | inodes)
            self._looked[protocol] = now
        owners = self._owners[protocol]
        return next((owners[i] for i in sorted(inodes) if i in owners), "another process")


def hold_port(key: NodePort) -> socket.socket | None:
    """Return a socket that keeps a node port from others, or None if it can't be bound."""
    family = socket.AF_INET6 if key.family is IPFamily.IPV6 else socket.AF_INET
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(socket.socket(family, _KINDS[key.protocol]))
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Without SO_REUSEADDR: it is for both that a kernel lets share a port.
            sock.bind(("", key.port))
            if key.protocol is Protocol.UDP:
                get_nothing(sock)
        except OSError:
            return None
        stack.pop_all()
    return sock
