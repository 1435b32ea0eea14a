"""Fills the connection tracking table of a sandbox's node."""

from __future__ import annotations

import sys

from tests.node.testbed import Testbed

# Adds ASSURED entries, which the kernel doesn't evict, as `conntrack -I` does, in one transaction.
_FILL_FOR_GOOD = """
import itertools, socket, struct, sys
from userspace_proxy.kernel.netlink.messages import CREATE, NESTED, attribute, request
from userspace_proxy.kernel.ctnetlink import CT_NEW

def tuple_of(kind, source, target, ports):
    ip = attribute(1 | NESTED, attribute(1, source) + attribute(2, target))
    numbers = attribute(1, bytes([17])) + attribute(2, ports[:2]) + attribute(3, ports[2:])
    return attribute(kind | NESTED, ip + attribute(2 | NESTED, numbers))

SERVER = bytes([127, 2, 0, 1])
SEEN_REPLY, ASSURED, CONFIRMED, LIFE_S = 1 << 1, 1 << 2, 1 << 3, 900
STATUS = attribute(3, struct.pack(">I", SEEN_REPLY | ASSURED | CONFIRMED))
MORE = STATUS + attribute(7, struct.pack(">I", LIFE_S))

def add(number):
    client = bytes([127, 1, number >> 14, 1])
    port, dns = struct.pack(">H", 10_000 + (number & 0x3FFF)), struct.pack(">H", 53)
    tuples = tuple_of(1, client, SERVER, port + dns) + tuple_of(2, SERVER, client, dns + port)
    return request(CT_NEW, CREATE, struct.pack("=BBH", 2, 0, 0) + tuples + MORE)

with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
    numbers = iter(range(int(sys.argv[1])))
    while some := list(itertools.islice(numbers, 500)):
        kernel.send(b"".join(map(add, some)))
"""


def fill_for_good(testbed: Testbed) -> None:
    """Fill the node's conntrack table up to its limit, with permanent entries."""
    limit = testbed.shell("cat /proc/sys/net/netfilter/nf_conntrack_max").strip()
    command = [sys.executable, "-c", _FILL_FOR_GOOD, limit]
    # This takes two seconds, and much longer on a busy machine.
    testbed.node.run(command, env=testbed.agent.environment, timeout=120)
