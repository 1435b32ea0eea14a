"""Port numbers for tests that take them for themselves."""

import random
import socket

from userspace_proxy.model import IPFamily, Protocol


def free_port(protocol=Protocol.TCP, family=IPFamily.IPV4):
    """Return a number that nobody uses; not an ephemeral one, which any program may get."""
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    af = socket.AF_INET6 if family is IPFamily.IPV6 else socket.AF_INET
    for port in random.sample(range(12000, 16900), 200):
        with socket.socket(af, kind) as sock:
            try:
                sock.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
