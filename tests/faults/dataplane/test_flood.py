import gc
import ipaddress
import socket
import struct

from tests.unit.dataplane.waiting import until
from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.sockets import IP_PKTINFO
from userspace_proxy.dataplane.udp import UdpFlow

CLIENTS = 20_000
MAX_FLOWS = 300
BURST = 50


def send_from(sock, source, payload, address):
    """Send from any address of 127.0.0.0/8 with one socket."""
    info = struct.pack("=I4s4s", 0, source.packed, bytes(4))
    sock.sendmsg([payload], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, address)


async def test_flows_of_very_many_clients_are_bounded(build):
    house = build(Tuning(max_flows=MAX_FLOWS))
    pod = house.udp_peer()
    dns = house.udp_service(pod.address)
    first = ipaddress.IPv4Address("127.16.0.1")
    heard = 0
    with socket.socket(type=socket.SOCK_DGRAM) as flood:
        flood.bind(("0.0.0.0", 0))
        for number in range(CLIENTS):
            send_from(flood, first + number, b"question", dns.address)
            if number % BURST == BURST - 1:
                wanted = number + 1
                while heard < wanted:
                    await pod.receive()
                    heard += 1
                assert len(house.plane.flows) <= MAX_FLOWS
                assert house.plane.descriptors.in_use <= MAX_FLOWS + 1
    assert dns.group.counters.evicted_flows == CLIENTS - MAX_FLOWS
    await until(lambda: len(house.plane.flows) == MAX_FLOWS)
    alive = [thing for thing in gc.get_objects() if isinstance(thing, UdpFlow)]
    assert len(alive) <= MAX_FLOWS + 1
