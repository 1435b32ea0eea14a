"""Reserves ports for programs that bind them later.

If the kernel chose a free port, it could assign the same port to another socket or client before
the program binds it. The port is therefore chosen below the kernel's default range, and claimed by
a socket name that only one process of the network namespace can bind.
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

# The candidates, below Linux's default ip_local_port_range and Kubernetes' NodePorts, which the
# proxy may serve.
_PORTS = range(10000, 30000)
# The distance between the first candidates of processes with consecutive PIDs, because these
# processes may have started together.
_STRIDE = 211
_turn = itertools.count()


class ClaimedPort(NamedTuple):
    """A TCP port that was free when it was claimed."""

    port: int
    claim: socket.socket
    """While this socket is open, no other process can claim the port."""


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
