"""Netlink sockets while the kernel sends many messages at once."""

import errno
import socket

import pytest

from userspace_proxy.kernel import classic_bpf as bpf
from userspace_proxy.kernel.netlink import Events, Requests, rtnetlink
from userspace_proxy.kernel.netlink.messages import CREATE, EXCL
from userspace_proxy.kernel.netlink.sockets import NETLINK_ROUTE

pytestmark = pytest.mark.netns
# The errors of this many requests take several times a socket's buffer.
MANY = 2000
TABLE, PROTOCOL = 4242, 99


def requests_for(kind, flags=0):
    return [
        rtnetlink.write_local_route(
            kind,
            flags,
            rtnetlink.LocalRoute(f"10.{96 + number // 250}.7.{number % 250}/32", table=TABLE),
            PROTOCOL,
        )
        for number in range(MANY)
    ]


def test_all_rejected_requests_of_a_batch_are_reported(node):
    with Requests.open(NETLINK_ROUTE) as requests:
        refused = requests.change(requests_for(rtnetlink.DEL_ROUTE))
    assert refused == [(number, errno.ESRCH) for number in range(MANY)]


@pytest.mark.kernel
def test_many_routes_are_added_listed_and_removed(node):
    with Requests.open(NETLINK_ROUTE) as requests:
        assert requests.change(requests_for(rtnetlink.NEW_ROUTE, CREATE | EXCL)) == []
        listed = requests.list_all(rtnetlink.list_routes(socket.AF_INET, table=TABLE))
        networks = {rtnetlink.read_route(message).open().network for message in listed}
        assert requests.change(requests_for(rtnetlink.DEL_ROUTE)) == []
    assert (len(networks), "10.103.7.249/32" in networks) == (MANY, True)


@pytest.mark.kernel
def test_a_slow_reader_detects_lost_events(node):
    events = Events(NETLINK_ROUTE, [rtnetlink.GROUP_ROUTE_4])
    with Requests.open(NETLINK_ROUTE) as requests:
        requests.change(requests_for(rtnetlink.NEW_ROUTE, CREATE | EXCL))
    heard = events.read()
    assert heard
    assert heard.has_lost
    assert 0 < len(heard.messages) < MANY
    assert not events.read()
    events.close()


def test_filtered_messages_are_not_received(node):
    events = Events(NETLINK_ROUTE, [rtnetlink.GROUP_LINK])
    events.filter([(bpf.RETURN, 0, 0, 0)])
    node.run("ip link set lo down")
    assert not events.read()
    events.filter(())
    node.run("ip link set lo up")
    assert rtnetlink.read_link(events.read().messages[0]).link.name == "lo"
    events.close()
