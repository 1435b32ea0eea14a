import errno

import pytest

from userspace_proxy.model.failures import (
    BY_OWN_ROUTE,
    LEFT,
    LOSSES,
    OWN_ROUTES,
    SHORTAGES,
    Failure,
    dial_failure,
)

IPV4, IPV6 = "10.244.0.9", "fd00::9"


@pytest.mark.parametrize(
    ("numbers", "failure"),
    [
        ([errno.ECONNREFUSED], Failure.REFUSED),
        ([errno.ETIMEDOUT], Failure.SILENT),
        ([errno.ECONNRESET, errno.EPIPE], Failure.RESET),
        ([errno.EHOSTUNREACH], Failure.HOST_UNREACHABLE),
        ([errno.ENETUNREACH], Failure.NET_UNREACHABLE),
        ([errno.EHOSTDOWN, errno.ENETDOWN], Failure.HOST_DOWN),
        ([errno.EPERM], Failure.NOT_PERMITTED),
        ([errno.ENOPROTOOPT], Failure.NO_PROTOCOL),
        ([errno.EINVAL], Failure.BLACKHOLE),
        ([errno.EADDRNOTAVAIL], Failure.OUT_OF_PORTS),
        ([errno.EAGAIN], Failure.OUT_OF_ALL_PORTS),
        ([errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS], Failure.EXHAUSTED),
        ([errno.ENONET, errno.EIO, 4095, 0], Failure.OTHER),
    ],
)
def test_each_errno_of_a_failed_dial_maps_to_one_failure_and_is_kept(numbers, failure):
    for number in numbers:
        assert dial_failure(number, IPV4) == dial_failure(number, IPV6) == (failure, number)


def test_eacces_over_ipv6_maps_to_a_different_failure():
    assert dial_failure(errno.EACCES, IPV4) == (Failure.NO_ACCESS, errno.EACCES)
    assert dial_failure(errno.EACCES, IPV6) == (Failure.ADMIN_PROHIBITED, errno.EACCES)


def test_no_errno_maps_to_a_failure_that_the_proxy_detects_itself():
    read = {dial_failure(number, ip).failure for number in range(4096) for ip in (IPV4, IPV6)}
    assert read.isdisjoint(LEFT | BY_OWN_ROUTE)
    assert read.isdisjoint({Failure.NO_HOST, Failure.CLOSED, Failure.NO_DATAGRAM})


def test_sets_of_failures_with_different_rules_are_disjoint():
    assert not SHORTAGES & BY_OWN_ROUTE
    assert not SHORTAGES & LEFT
    assert not BY_OWN_ROUTE & OWN_ROUTES.keys()
    assert LOSSES < LEFT
