from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from types import SimpleNamespace

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel import conntrack
from userspace_proxy.kernel.conntrack import (
    Allowed,
    ByDialled,
    Change,
    Range,
    StaleEntries,
    connections_at,
    count_by_endpoint,
    counts_bytes,
    is_answered,
)
from userspace_proxy.kernel.ctnetlink import (
    IPS_DST_NAT,
    IPS_SEEN_REPLY,
    ConntrackEntry,
    Volume,
    pack_address,
)
from userspace_proxy.kernel.netlink import Requests
from userspace_proxy.kernel.netlink.messages import NESTED, attribute
from userspace_proxy.model import SocketAddress, pack_ip

CLIENT = pack_address("10.1.0.2", 40000)
DNS = pack_address("10.96.0.10", 53)
STEERED = ConntrackEntry(CLIENT, DNS, pack_address("10.1.0.1", 36002), b"")
CHANGE = Change(socket.IPPROTO_TCP, SocketAddress("10.96.0.10", 53), (), 36001)


@pytest.mark.parametrize(
    ("status", "state", "flags", "expected"),
    [
        pytest.param(0, 1, 0, False, id="an-unanswered-syn"),
        pytest.param(IPS_DST_NAT, 1, 0, False, id="translated"),
        pytest.param(IPS_SEEN_REPLY | IPS_DST_NAT, 2, 0, True, id="answered"),
        pytest.param(IPS_SEEN_REPLY | IPS_DST_NAT, 8, 3, False, id="reset"),
        pytest.param(IPS_SEEN_REPLY | IPS_DST_NAT, 8, 4, True, id="reset-after-a-fin"),
    ],
)
def test_an_entry_is_answered_by_a_reply_unless_reset_without_a_fin(status, state, flags, expected):
    parts = attribute(1, bytes([state])) + attribute(5, bytes([flags, 0]))
    tcp = attribute(4 | NESTED, attribute(1 | NESTED, parts))
    said = bytes(20) + struct.pack("=HH", 8, 3) + status.to_bytes(4, "big") + tcp
    assert is_answered(ConntrackEntry(CLIENT, DNS, DNS, said)) is expected


def test_without_frontends_the_conntrack_table_is_not_listed(monkeypatch):
    monkeypatch.delattr("userspace_proxy.kernel.netlink.Requests.open")
    assert StaleEntries().forget_changed(4, ()) == 0


@pytest.mark.parametrize(
    ("protocol", "answers", "silent"), [("TCP", 1, 1), ("UDP", 1, 1), ("TCP", 0, 2), ("UDP", 0, 0)]
)
def test_an_endpoint_without_answers_to_three_clients_is_silent_but_for_udp_only_if_another_answers(
    monkeypatch, protocol, answers, silent
):
    web, one, other, few = (
        SocketAddress(ip, 80) for ip in ("10.96.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3")
    )
    cart = SocketAddress("10.96.0.2", 80)

    def entry(endpoint, client_port, has_answered_client=False, at=web):
        return SimpleNamespace(
            client=pack_address("192.0.2.9", client_port),
            dialled=pack_address(*at),
            answered_from=pack_address(*endpoint),
            has_answered_client=has_answered_client,
            forgotten_in_s=0,
        )

    entries = [
        *(entry(one, port) for port in range(3)),
        *(entry(other, port) for port in range(10, 13)),
        *(entry(other, 13 + n, has_answered_client=True) for n in range(2 * answers)),
        *(entry(few, port) for port in range(20, 22)),
        *(entry(one, port, at=cart) for port in range(30, 33)),
    ]
    monkeypatch.setattr(conntrack, "_requests", contextlib.nullcontext)
    monkeypatch.setattr(conntrack, "list_entries", lambda *_: entries)
    endpoints = {pack_address(*at) for at in (one, other, few)}
    number = getattr(socket, f"IPPROTO_{protocol}")
    found = connections_at(4, number, {web: endpoints, cart: endpoints}, set())
    assert found[web].silent == {pack_address(*at) for at in (one, other)[:silent]}
    assert len(found[web].answered) == 2 * answers
    assert len(found[cart].silent) == (protocol == "TCP")


def test_the_volumes_of_all_entries_of_an_endpoint_are_added(monkeypatch):
    entry = SimpleNamespace(dialled=DNS, answered_from=pack_address(*A), volume=Volume(1, 2, 3, 4))
    monkeypatch.setattr(conntrack, "_requests", contextlib.nullcontext)
    monkeypatch.setattr(conntrack, "list_entries", lambda *_: [entry, entry])
    monkeypatch.setattr(conntrack, "counts_bytes", lambda: True)
    leg = entry.dialled, entry.answered_from
    assert count_by_endpoint(4, socket.IPPROTO_UDP) == ({leg: 2}, {leg: Volume(2, 4, 6, 8)})


def test_unanswered_clients_of_this_node_count_and_entries_of_proxy_ports_do_not(monkeypatch):
    entries = [
        ConntrackEntry(client, DNS, pack_address(*at), b"")
        for client, at in (
            (CLIENT, ("10.1.0.1", 36002)),
            (pack_address("10.1.0.1", 40000), A),
            (pack_address("10.1.0.1", 40001), ("10.1.0.1", 53)),
        )
    ]
    monkeypatch.setattr(conntrack, "_requests", contextlib.nullcontext)
    monkeypatch.setattr(conntrack, "list_entries", lambda *_: entries)
    at, here = CHANGE.dialled, {pack_ip("10.1.0.1")}
    endpoints = {pack_address(*A), pack_address("10.1.0.1", 53)}
    found = connections_at(4, socket.IPPROTO_UDP, {at: endpoints}, here)[at]
    assert (len(found.own), len(found.answered)) == (2, 0)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(errno.EMFILE, "RLIMIT_NOFILE", id="descriptors"),
        pytest.param(errno.EPERM, "grant NET_ADMIN", id="permission"),
    ],
)
def test_the_hint_of_a_conntrack_error_depends_on_the_errno(monkeypatch, number, words):
    def refuse(_protocol):
        raise OSError(number, "refused")

    monkeypatch.setattr(Requests, "open", refuse)
    with pytest.raises(SteeringError) as raised:
        StaleEntries().forget_changed(4, [CHANGE])
    assert words in raised.value.hint
    with pytest.raises(SteeringError) as raised:
        StaleEntries().check(4)
    assert words in raised.value.hint


@pytest.mark.parametrize(("is_replaced", "removed"), [(False, 0), (True, 1)])
def test_a_removed_frontends_syns_are_removed_only_at_a_port_that_others_may_use(
    monkeypatch, is_replaced, removed
):
    entries = [STEERED, STEERED._replace(answered_from=pack_address(*A))]
    monkeypatch.setattr(conntrack, "list_entries", lambda *_: entries)
    monkeypatch.setattr(conntrack, "remove_request", lambda entry: entry.answered_from)
    monkeypatch.setattr(conntrack, "remove_entries", lambda *_: None)
    change = CHANGE._replace(before=[36002], now=None, choices=[([A], None)])
    changes = [change._replace(is_replaced=is_replaced)]
    with contextlib.closing(StaleEntries()) as stale:
        assert stale.forget_changed(4, changes) == removed


class _Answers:
    """A netlink socket that answers a listing, or refuses it."""

    is_closed = False

    def __init__(self, code=0):
        self.code = code

    def blocks(self, _request):
        if self.code:
            raise OSError(self.code, "refused")
        return ()

    def change(self, _requests):
        return ()

    def close(self):
        self.is_closed = True


def test_removing_entries_reuses_its_socket_until_it_fails(monkeypatch):
    first, second = _Answers(), _Answers()
    opened = iter([first, second])
    monkeypatch.setattr(Requests, "open", lambda _protocol: next(opened))
    entries = StaleEntries()
    entries.check(4)
    entries.forget_changed(4, [CHANGE])
    first.code = errno.ETIMEDOUT
    with pytest.raises(SteeringError):
        entries.forget_changed(4, [CHANGE])
    assert first.is_closed
    entries.forget_changed(4, [CHANGE])
    entries.close()
    assert second.is_closed


A, B = ("10.244.1.2", 53), ("10.244.1.3", 53)
TO_A = ConntrackEntry(CLIENT, DNS, pack_address(*A), b"")


@pytest.mark.parametrize(
    ("before", "now", "choices", "expected"),
    [
        pytest.param(36002, 36002, [([A, B], None)], False, id="listed-endpoint"),
        pytest.param(36002, 36002, [([B], None)], True, id="removed-endpoint"),
        pytest.param(
            36002, 36002, [([B], ["10.1.0.0/24"]), ([A], None)], True, id="endpoint-of-others"
        ),
        pytest.param(
            36002, 36002, [([B], ["10.9.0.0/24"]), ([A], None)], False, id="endpoint-of-client"
        ),
        pytest.param(36002, 36002, [([A], ["10.9.0.0/24"])], True, id="client-without-an-endpoint"),
        pytest.param(36002, None, [([A], None)], True, id="no-longer-steered"),
        pytest.param(36002, None, [([B], None)], False, id="translated-by-another-program"),
    ],
)
def test_a_steered_entry_is_stale_unless_its_endpoint_may_serve_it(before, now, choices, expected):
    change = Change(17, SocketAddress("10.96.0.10", 53), (before,), now, choices)
    assert Allowed(change).is_stale(TO_A) is expected


def test_an_entry_translated_to_its_proxy_port_is_not_stale():
    change = Change(17, SocketAddress("10.96.0.10", 53), (), 36002, [([A], None)])
    assert not Allowed(change).is_stale(STEERED)


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        pytest.param(["10.1.0.1", "127.0.0.1"], False, id="an-address-of-the-node"),
        pytest.param(["10.1.0.9", "127.0.0.1"], True, id="a-former-address"),
        pytest.param([], False, id="unknown-addresses"),
    ],
)
def test_an_entry_translated_to_a_former_address_of_the_node_is_stale(here, expected):
    change = Change(
        17, SocketAddress("10.96.0.10", 53), (36002,), 36002, here=set(map(pack_ip, here))
    )
    assert Allowed(change).is_stale(STEERED) is expected


def test_an_entry_of_an_endpoint_whose_port_equals_the_proxy_port_is_not_stale():
    choices = [([("10.1.0.1", 36002)], None)]
    change = Change(
        17, SocketAddress("10.96.0.10", 53), (36002,), 36002, choices, {pack_ip("10.1.0.9")}
    )
    assert not Allowed(change).is_stale(STEERED)


@pytest.mark.parametrize(("content", "expected"), [("1\n", True), ("0\n", False), (None, False)])
def test_conntrack_byte_accounting_is_read_from_a_sysctl(tmp_path, content, expected):
    setting = tmp_path / "nf_conntrack_acct"
    if content is not None:
        setting.write_text(content)
    assert counts_bytes(setting) is expected


RANGE = Change(
    17,
    SocketAddress("10.96.0.21", 20000),
    (),
    36002,
    # The first port of the range is translated to port 30000.
    [([("10.244.1.2", 30000)], None)],
    range=Range(20100, frozenset({20050})),
)


@pytest.mark.parametrize(
    ("dialled", "answered_from", "is_stale"),
    [
        pytest.param(20000, ("10.244.1.2", 30000), False, id="first-port"),
        pytest.param(20100, ("10.244.1.2", 30100), False, id="last-port"),
        pytest.param(20007, ("10.244.1.2", 30008), True, id="another-port-of-the-endpoint"),
        pytest.param(20007, ("10.244.1.9", 30007), True, id="another-endpoint"),
        pytest.param(20007, ("10.1.0.1", 36002), False, id="the-proxy-port"),
        pytest.param(20050, ("10.244.1.9", 9), None, id="a-port-that-another-frontend-has"),
        pytest.param(20101, ("10.244.1.9", 9), None, id="beyond-the-range"),
        pytest.param(19999, ("10.244.1.9", 9), None, id="before-the-range"),
    ],
)
def test_an_entry_of_a_range_is_stale_unless_it_leads_to_its_own_endpoint_port_or_the_proxy_port(
    dialled, answered_from, is_stale
):
    at = pack_address("10.96.0.21", dialled)
    allowed = ByDialled([RANGE]).find(at)
    entry = ConntrackEntry(CLIENT, at, pack_address(*answered_from), b"")
    assert (None if allowed is None else allowed.is_stale(entry)) is is_stale


def test_the_change_of_a_single_port_takes_precedence_over_the_change_of_a_range():
    single = Change(17, SocketAddress("10.96.0.21", 20007), (), 36003)
    found = ByDialled([RANGE, single])
    entry = ConntrackEntry(CLIENT, DNS, pack_address("10.1.0.1", 36003), b"")
    assert not found.find(pack_address("10.96.0.21", 20007)).is_stale(entry)
    assert found.find(pack_address("10.96.0.22", 20007)) is None


def test_a_port_in_overlapping_old_and_new_ranges_uses_the_current_range():
    ip = "10.96.0.21"

    def ranged(first, last, now, besides=()):
        of_range = Range(last, frozenset(besides))
        return Change(17, SocketAddress(ip, first), (), now, range=of_range)

    changes = [
        ranged(100, 900, None, besides=range(200, 301)),
        ranged(200, 300, 36002),
        ranged(250, 260, None, besides=range(250, 261)),
        ranged(901, 999, 36003),
    ]
    found = ByDialled(changes[::-1])
    # An entry is stale unless it is translated to the current port.
    for port, now in ((200, 36002), (255, 36002), (300, 36002), (950, 36003)):
        entry = ConntrackEntry(CLIENT, DNS, pack_address("10.1.0.1", now), b"")
        assert not found.find(pack_address(ip, port)).is_stale(entry)
    for port in (100, 199, 301, 900):
        assert found.find(pack_address(ip, port)) is not None
    for port in (99, 1000):
        assert found.find(pack_address(ip, port)) is None


def test_four_thousand_lookups_among_ten_thousand_ranges_take_less_than_a_second():
    changes = [
        Change(17, SocketAddress("10.96.0.21", n), (), 36002, range=Range(n + 1))
        for n in range(1, 20_001, 2)
    ]
    found = ByDialled(changes)
    begin = time.thread_time()
    for _ in range(20):
        for port in range(1, 20_001, 100):
            assert found.find(pack_address("10.96.0.21", port)) is not None
    assert time.thread_time() - begin < 1.0
