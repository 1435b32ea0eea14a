"""Requests and the kernel's replies, on a socket pair; tests/node uses a real kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.netlink import RouteSockets, explained, rtnetlink, sockets
from userspace_proxy.kernel.netlink.messages import ACK, request
from userspace_proxy.kernel.netlink.sockets import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    EventBatch,
    is_for_netfilter,
)

from .datagrams import INTERRUPTED, Kernel, done, error, message

LIST = request(22, 0x300, b"")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param((socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER), True, id="netfilter"),
        pytest.param((socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE), False, id="routes"),
        pytest.param((socket.AF_INET, socket.SOCK_RAW, NETLINK_NETFILTER), False, id="no-netlink"),
    ],
)
def test_only_netfilter_netlink_sockets_are_recognized(arguments, expected):
    with socket.socket(*arguments) as sock:
        assert is_for_netfilter(sock) is expected


def test_an_interrupted_listing_is_repeated():
    disturbed = [message(20, b"1111", flags=INTERRUPTED), done()]
    with Kernel(*disturbed, message(20, b"2222", number=2) + done(2)) as kernel:
        assert [one.body for one in kernel.requests.list_all(LIST)] == [b"2222"]


def test_an_always_interrupted_listing_is_an_error():
    disturbed = [done(n + 1, flags=INTERRUPTED) for n in range(sockets.LISTINGS)]
    with Kernel(*disturbed) as kernel, pytest.raises(OSError, match="changed during each") as told:
        kernel.requests.list_all(LIST)
    assert told.value.errno == errno.EBUSY


def test_list_once_reports_whether_its_listing_was_interrupted():
    disturbed = [message(20, b"1111", flags=INTERRUPTED), done()]
    with Kernel(*disturbed, message(20, b"2222", number=2), done(2)) as kernel:
        first, second = (kernel.requests.list_once(LIST) for _ in range(2))
    assert [([one.body for one in found], whole) for found, whole in (first, second)] == [
        ([b"1111"], False),
        ([b"2222"], True),
    ]


def test_a_listing_is_read_completely_before_parsing(monkeypatch):
    """A change during a listing interrupts it, and parsing takes ten times as long as reading."""
    order = []
    read_messages, receive = sockets.read_messages, sockets.Requests._receive
    monkeypatch.setattr(
        sockets, "read_messages", lambda block: order.append("parse") or read_messages(block)
    )
    monkeypatch.setattr(
        sockets.Requests,
        "_receive",
        lambda self, numbers: order.append("read") or receive(self, numbers),
    )
    with Kernel(message(20, b"1111"), done()) as kernel:
        kernel.requests.list_once(LIST)
    assert order == ["read", "read", "parse", "parse"]


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP])
def test_a_listing_unsupported_by_the_kernel_is_empty(code):
    with Kernel(error(code)) as kernel:
        assert kernel.requests.list_supported(LIST) == []


def test_a_listing_denied_by_the_kernel_is_an_error():
    with Kernel(error(errno.EPERM)) as kernel, pytest.raises(PermissionError):
        kernel.requests.list_supported(LIST)


def test_responses_to_an_abandoned_request_are_skipped():
    with Kernel(error(errno.EPERM), message(20, b"late") + done(), done(2)) as kernel:
        with pytest.raises(PermissionError):
            kernel.requests.list_all(LIST)
        assert kernel.requests.list_all(LIST) == []


def test_an_unresponsive_kernel_is_an_error(monkeypatch):
    monkeypatch.setattr(sockets, "ANSWER_WITHIN_S", 0.01)
    with Kernel() as kernel, pytest.raises(TimeoutError, match="the kernel doesn't answer"):
        kernel.requests.list_all(LIST)


@pytest.mark.parametrize("ask", ["list_all", "change"])
def test_unrelated_datagrams_do_not_extend_the_deadline(monkeypatch, ask):
    monkeypatch.setattr(sockets, "ANSWER_WITHIN_S", 0.01)
    with Kernel() as kernel:
        answer = done() if ask == "list_all" else error(0)
        feeding = threading.Thread(
            target=kernel.answer, args=([error(0, 999)] * 100_000 + [answer],)
        )
        feeding.start()
        with pytest.raises(TimeoutError, match="the kernel doesn't answer"):
            getattr(kernel.requests, ask)(LIST if ask == "list_all" else [LIST])
        kernel.requests.close()
        feeding.join()


def test_ask_returns_the_kernels_response_or_raises_its_error():
    with Kernel(message(24, b"way"), error(errno.ENETUNREACH, 2)) as kernel:
        assert kernel.requests.ask(request(26, 0, b"")).body == b"way"
        with pytest.raises(OSError, match="Network is unreachable"):
            kernel.requests.ask(request(26, 0, b""))


def test_only_the_last_change_requests_an_acknowledgement_and_errors_have_indexes():
    with Kernel(error(errno.EEXIST, 2), error(0, 3)) as kernel:
        refused = kernel.requests.change([request(24, 0, b"")] * 3)
        asked = kernel.asked()
        sent = [struct.unpack_from("=IHHII", asked, at)[2:4] for at in (0, 16, 32)]
    assert refused == [(1, errno.EEXIST)]
    assert sent == [(1, 1), (1, 2), (1 | ACK, 3)]


def test_an_error_for_the_last_change_ends_the_wait_for_its_acknowledgement():
    with Kernel(error(errno.ESRCH, 2)) as kernel:
        assert kernel.requests.change([request(25, 0, b"")] * 2) == [(1, errno.ESRCH)]


def test_error_indexes_continue_across_batches_of_changes():
    size = sockets.BATCH
    with Kernel(error(0, size), error(errno.EEXIST, size + 1), error(0, size + 2)) as kernel:
        assert kernel.requests.change([request(24, 0, b"")] * (size + 2)) == [(size, errno.EEXIST)]


def test_without_changes_no_request_is_sent():
    with Kernel() as kernel:
        assert kernel.requests.change([]) == []


def test_a_route_netlink_socket_lists_links():
    with RouteSockets([rtnetlink.GROUP_LINK]) as route:
        listed = route.requests.list_all(rtnetlink.list_links())
        assert not route.events.read()
    assert EventBatch(listed)
    assert EventBatch([], has_lost=True)
    assert "lo" in [rtnetlink.read_link(message).link.name for message in listed]


@pytest.mark.parametrize("left", [0, 1], ids=["none", "one"])
def test_running_out_of_descriptors_is_an_error_and_leaks_no_descriptor(left):
    with descriptors_left(left):
        with pytest.raises(SteeringError) as raised, explained("list links"):
            RouteSockets([rtnetlink.GROUP_LINK])
        if left:
            os.close(os.dup(0))
    assert raised.value.message == "cannot list links: Too many open files"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        pytest.param(errno.EPERM, "run as root", id="known"),
        pytest.param(errno.ENFILE, "this node is out of open files", id="shortage"),
        pytest.param(errno.EINVAL, "modprobe it", id="other"),
    ],
)
def test_the_hint_of_a_netlink_error_depends_on_its_errno(number, hint):
    hints = {errno.EPERM: "run as root"}
    with pytest.raises(SteeringError) as raised, explained("ask", hints, hint="modprobe it"):
        raise OSError(number, os.strerror(number))
    assert raised.value.message == f"cannot ask: {os.strerror(number)}"
    assert raised.value.hint.startswith(hint)
