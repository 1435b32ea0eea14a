"""Reserves ports for programs that bind them later.

The kernel may give a free port that it chose to the next socket that asks for any, or to a client
on this machine; a server that then binds all addresses is refused. So such a port is chosen below
the kernel's default range, and a name that only one process of the network namespace can have keeps
others from choosing it.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from typing import NamedTuple

from userspace_proxy.model import SocketAddress

from .backend import BackendError
from .places import BackendPlace

# The ports to choose from, below Linux's default ip_local_port_range and Kubernetes' NodePorts,
# which the proxy may serve.
_PORTS = range(10000, 30000)
# The distance between the first ports of processes with consecutive pids, such as processes that
# start together.
_STRIDE = 211
_turn = itertools.count()


class ClaimedPort(NamedTuple):
    """A free TCP port of this network namespace."""

    port: int
    claim: socket.socket
    """A socket; while it is open, no other process can claim the port."""


def claim_port(place: BackendPlace) -> ClaimedPort:
    """Return a port that is free on all addresses of the place's family.

    Raises:
        BackendError: No port is free.
    """
    start = os.getpid() * _STRIDE
    for number in itertools.islice(_turn, len(_PORTS)):
        port = _PORTS[(start + number) % len(_PORTS)]
        claim = _claim(place, port)
        if claim is not None:
            return ClaimedPort(port, claim)
    raise BackendError(
        f"no TCP port of {_PORTS[0]}-{_PORTS[-1]} is free for the program",
        hint="end programs that hold them: ss -ltnp",
    )


def _claim(place: BackendPlace, port: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0userspace-proxy-port-{port}")
        everywhere = "::" if ":" in place.address.ip else "0.0.0.0"
        place.bind(socket.SOCK_STREAM, SocketAddress(everywhere, port)).close()
    except OSError as exc:
        claim.close()
        if exc.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return claim
