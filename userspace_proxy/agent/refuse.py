"""The refuse port: a reserved local port without a listener.

It is kept for both protocols and families. A TCP socket that is bound and doesn't listen keeps
the number; the kernel answers with a RST. A UDP socket that receives nothing does the same for
UDP: rules reject what is steered there (DESIGN: refusing), and the kernel all other datagrams.
"""

from __future__ import annotations

import contextlib
import itertools
import socket

from ..errors import ListenError
from ..model import IPFamily, Protocol
from .node_ports import NodePort, hold_port

# The kernel's default range of ephemeral ports: no daemon and no Service has one of its own there.
_ELSEWHERE = range(32768, 61000)

# TCP over IPv4 comes first: where it isn't to be had, nothing else is tried.
_KINDS = [(protocol, family) for family in IPFamily for protocol in Protocol]


class RefusePort:
    """The reserved port of one proxy: of the end of the proxy port range, if one is free there."""

    def __init__(self) -> None:
        self.number = 0
        """0 before :meth:`open`."""
        self._sockets = contextlib.ExitStack()

    def open(self, first: int, last: int) -> int:
        """Reserve the highest number of the range that is free, and return it.

        Where others have all of the range it is one of elsewhere: any user can take unprivileged
        ports, and that mustn't keep a proxy from starting.

        Raises:
            ListenError: No number is free there either.
        """
        families = [family for family in IPFamily if _is_there(family)]
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
        """Give the port back; idempotent."""
        self._sockets.close()


def _is_there(family: IPFamily) -> bool:
    """Return whether this node has a family; IPv6 may be switched off."""
    kind = socket.AF_INET6 if family is IPFamily.IPV6 else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.bind(("", 0))
    except OSError:
        return False
    return True
