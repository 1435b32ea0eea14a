"""The refuse port: a reserved local port without a listener, for both protocols and families.

A TCP socket that is bound and doesn't listen reserves the number, and the kernel answers clients
with a RST. For UDP it is a socket that receives nothing: rules reject the datagrams that are
steered there, and the kernel rejects all others.
"""

from __future__ import annotations

import contextlib
import itertools
import socket

from ..errors import ListenError
from ..model import IPFamily, Protocol
from .rounds.node_ports import NodePort, hold_port

# The kernel's default range of ephemeral ports, where daemons and Services have no fixed ports.
_ELSEWHERE = range(32768, 61000)

# TCP over IPv4 first: if it isn't available, nothing else is tried.
_KINDS = [(protocol, family) for family in IPFamily for protocol in Protocol]


class RefusePort:
    """The refuse port of one proxy: at the end of the proxy port range, if one is free there."""

    def __init__(self) -> None:
        self.number = 0
        """0 before :meth:`open`."""
        self._sockets = contextlib.ExitStack()

    def open(self, first: int, last: int) -> int:
        """Reserve the highest free number of the range, and return it.

        If other programs use the whole range, it is one of 32768–60999: any user can bind
        unprivileged ports, and that mustn't keep a proxy from starting.

        Raises:
            ListenError: No number is free there either.
        """
        families = [family for family in IPFamily if _has_family(family)]
        for port in itertools.chain(range(last, first - 1, -1), reversed(_ELSEWHERE)):
            with contextlib.ExitStack() as stack:
                for protocol, family in _KINDS:
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
    """Return whether this node has an IP family; IPv6 may be switched off."""
    kind = socket.AF_INET6 if family is IPFamily.IPV6 else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.bind(("", 0))
    except OSError:
        return False
    return True
