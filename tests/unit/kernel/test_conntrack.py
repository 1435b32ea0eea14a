from __future__ import annotations

import errno
import socket
import struct

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.conntrack import (
    Change,
    Dialled,
    check,
    forget_changed,
    is_unsteered,
    leads_to,
)
from userspace_proxy.kernel.ctnetlink import (
    IPS_DST_NAT,
    IPS_SEEN_REPLY,
    ConntrackEntry,
    pack_address,
)
from userspace_proxy.kernel.netlink import Requests

CLIENT = pack_address("10.1.0.2", 40000)
DNS = pack_address("10.96.0.10", 53)
STEERED = ConntrackEntry(CLIENT, DNS, pack_address("10.1.0.1", 36002), b"")
PASSED_BY = ConntrackEntry(CLIENT, DNS, DNS, b"")


@pytest.mark.parametrize(
    ("association", "port", "expected"),
    [
        pytest.param(STEERED, 36002, True, id="to-its-port"),
        pytest.param(STEERED, 36003, False, id="to-an-old-port"),
        pytest.param(PASSED_BY, 36002, False, id="made-before-the-rule"),
    ],
)
def test_where_an_association_leads(association, port, expected):
    assert leads_to(association, port) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(0, True, id="an-unanswered-syn"),
        pytest.param(IPS_DST_NAT, False, id="translated"),
        pytest.param(IPS_SEEN_REPLY, False, id="answered-without-the-proxy"),
    ],
)
def test_which_connections_have_bypassed_the_rules(status, expected):
    said = bytes(20) + struct.pack("=HH", 8, 3) + status.to_bytes(4, "big")
    assert is_unsteered(ConntrackEntry(CLIENT, DNS, DNS, said)) is expected


def test_without_frontends_nothing_is_listed(monkeypatch):
    monkeypatch.delattr("userspace_proxy.kernel.netlink.Requests.open")
    assert forget_changed(4, ()) == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(errno.EMFILE, "RLIMIT_NOFILE", id="descriptors"),
        pytest.param(errno.ENFILE, "fs.file-max", id="open-files"),
        pytest.param(errno.ENOBUFS, "see the node's memory", id="memory"),
        pytest.param(errno.EPERM, "grant NET_ADMIN", id="permission"),
    ],
)
def test_the_hint_follows_the_cause(monkeypatch, number, words):
    def refuse(_protocol):
        raise OSError(number, "refused")

    monkeypatch.setattr(Requests, "open", refuse)
    with pytest.raises(SteeringError) as raised:
        forget_changed(4, [Change(socket.IPPROTO_TCP, Dialled("10.96.0.10", 53), None, 36001)])
    assert words in raised.value.hint
    with pytest.raises(SteeringError) as raised:
        check(4)
    assert words in raised.value.hint
