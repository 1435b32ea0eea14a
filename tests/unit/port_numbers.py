"""Provides port numbers for tests, and detects listeners."""

import itertools
import os
import random
import socket
from pathlib import Path

from userspace_proxy.kernel import port_holders
from userspace_proxy.model import IPFamily, Protocol

_NUMBERS = itertools.cycle(random.Random(16).sample(range(12000, 16900), 4900))


def free_port(protocol=Protocol.TCP, family=IPFamily.IPV4):
    """Return a different unused port number on each call, outside the ephemeral range."""
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    af = socket.AF_INET6 if family is IPFamily.IPV6 else socket.AF_INET
    for port in itertools.islice(_NUMBERS, 200):
        with socket.socket(af, kind) as sock:
            try:
                sock.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def is_listening(port, ip="127.0.0.1"):
    """Return whether an IPv4 address has a listener, without dialling this address.

    A dial would make the proxy dial an endpoint, which has a documentation address in tests.
    """
    # Source: proc_net_tcp.txt; addresses are hexadecimal in the machine's byte order.
    places = {f"{socket.inet_aton(at)[::-1].hex().upper()}:{port:04X}" for at in (ip, "0.0.0.0")}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[3] == "0A" and row[1] in places for row in rows)


def own_name():
    """Return this process's name as in reports about which process holds a port."""
    name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    return f"{name} (pid {os.getpid()})"


def look_no_further_than(server, monkeypatch):
    """Limit the search for a socket's process to descriptors up to this server's."""
    numbers = sorted(int(path.name) for path in Path("/proc/self/fd").iterdir())
    monkeypatch.setattr(port_holders, "OF_PROCESS_MAX", numbers.index(server.fileno()) + 1)
