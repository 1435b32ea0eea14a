import ipaddress
import socket
import struct
import time

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.kernel.socket_options import IP_PKTINFO

CLIENTS = 100_000
FIRST = ipaddress.IPv4Address("127.16.0.1")
FEW_FLOWS, MANY_FLOWS = 300, 9000
BURST = 50
MEASURED = 4000
LAPS = 12
# A scan of the larger table makes it 6 and more, the client's own work included.
NOISE = 3


class Flood:
    """Clients of a UDP Service, each at an address of its own, and its endpoint."""

    def __init__(self, rig):
        self.rig = rig
        self.pod = rig.udp_peer()
        self.dns = rig.udp_service(self.pod.address)
        # A socket may send from any address of 127.0.0.0/8.
        self._sock = rig.keep(socket.socket(type=socket.SOCK_DGRAM))
        self._sock.bind(("0.0.0.0", 0))

    def ask_from(self, number):
        """Send one question from the address of that number."""
        info = struct.pack("=I4s4s", 0, (FIRST + number).packed, bytes(4))
        ancillary = [(socket.IPPROTO_IP, IP_PKTINFO, info)]
        self._sock.sendmsg([b"question"], ancillary, 0, self.dns.address)

    async def run(self, numbers):
        """Ask from each of these addresses, in bursts that no buffer is too small for."""
        for begin in range(0, len(numbers), BURST):
            burst = numbers[begin : begin + BURST]
            for number in burst:
                self.ask_from(number)
            for _ in burst:
                await self.pod.receive()
            assert len(self.rig.flows) <= self.rig.flows.max_flows

    async def seconds_of(self, numbers):
        """Return the processor time that these take."""
        began = time.process_time()
        await self.run(numbers)
        return time.process_time() - began


@pytest.mark.long
@pytest.mark.parametrize(
    "are_new", [pytest.param(True, id="new client"), pytest.param(False, id="known client")]
)
async def test_a_datagram_costs_no_more_at_a_full_table_than_at_a_small_one(build, are_new):
    took_s = []
    for max_flows in (FEW_FLOWS, MANY_FLOWS):
        flood = Flood(build(Tuning(max_flows=max_flows)))
        await flood.run(range(max_flows))
        assert flood.rig.flows.is_full
        known = range(0, max_flows, max_flows // FEW_FLOWS)
        asking = range(max_flows, max_flows + MEASURED) if are_new else [*known] * LAPS
        took_s.append(await flood.seconds_of(asking))
        flood.rig.close()
    few, many = took_s
    assert many < NOISE * few, f"{few:.3f} s with {FEW_FLOWS} flows, {many:.3f} s with {MANY_FLOWS}"
