"""Tests of resolving names of Services by socket.getaddrinfo in this process."""

import asyncio
import socket
import threading

import pytest

from userspace_proxy.cluster import Snapshot
from userspace_proxy.lookup.in_process import ProcessNames
from userspace_proxy.names import ServiceNames

from .names import ShopNames

ORIGINAL = socket.getaddrinfo


def addresses(*arguments, **options):
    return [info[4] for info in socket.getaddrinfo(*arguments, **options)]


@pytest.mark.parametrize("host", ["v4", "v4.shop", b"v4.shop.svc", "v4.shop.svc.cluster.local"])
def test_getaddrinfo_is_replaced_only_within_the_block(host):
    with ProcessNames(ShopNames()):
        assert addresses(host, 8080, type=socket.SOCK_STREAM) == [("127.64.0.11", 8080)]
    assert socket.getaddrinfo is ORIGINAL


def test_the_ports_of_a_service_are_replaced_by_their_actual_ports():
    with ProcessNames(ShopNames()):
        assert addresses("v4", "http", type=socket.SOCK_STREAM) == [("127.64.0.11", 8000)]
        assert addresses("v4", 80, type=socket.SOCK_DGRAM) == [("127.64.0.11", 80)]


def test_getaddrinfo_returns_only_addresses_of_the_requested_family():
    with ProcessNames(ShopNames()):
        assert [a[0] for a in addresses("web", 1, type=socket.SOCK_STREAM)] == [
            "127.64.0.10",
            "::1",
        ]
        assert addresses("web", 1, socket.AF_INET6, socket.SOCK_STREAM) == [("::1", 1, 0, 0)]
        with pytest.raises(socket.gaierror, match="v4"):
            socket.getaddrinfo("v4", 1, socket.AF_INET6)


def test_the_canonical_name_of_a_service_is_absolute():
    with ProcessNames(ShopNames()):
        (info,) = socket.getaddrinfo("v4", 1, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    assert info[3] == "v4.shop.svc.cluster.local"


def test_the_flag_ai_addrconfig_does_not_exclude_loopback():
    with ProcessNames(ShopNames()):
        found = addresses("v4", 80, socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    assert found == [("127.64.0.11", 8000)]


def test_an_external_name_resolves_to_the_addresses_of_its_target():
    with ProcessNames(ShopNames()):
        found = socket.getaddrinfo("db", 5432, socket.AF_INET, socket.SOCK_STREAM)
    assert found == ORIGINAL("localhost", 5432, socket.AF_INET, socket.SOCK_STREAM)


def test_a_nonexistent_service_is_not_looked_up_elsewhere():
    with ProcessNames(ShopNames()), pytest.raises(socket.gaierror) as caught:
        socket.getaddrinfo("none.shop.svc.cluster.local", 80)
    assert caught.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize("host", [None, "127.0.0.1", "::1", "fe80::1%lo", "localhost"])
def test_addresses_and_names_that_belong_to_no_service_use_the_original_getaddrinfo(host):
    with ProcessNames(ShopNames()):
        found = addresses(host, 80, type=socket.SOCK_STREAM)
    assert found == [info[4] for info in ORIGINAL(host, 80, type=socket.SOCK_STREAM)]


def test_a_numeric_host_flag_uses_the_original_getaddrinfo():
    with ProcessNames(ShopNames()), pytest.raises(socket.gaierror):
        socket.getaddrinfo("v4", 80, flags=socket.AI_NUMERICHOST)


def test_nested_blocks_may_end_in_any_order():
    empty = ShopNames(ServiceNames(Snapshot({})))
    outer, inner = ProcessNames(ShopNames()), ProcessNames(empty)
    outer.__enter__()
    inner.__enter__()
    assert addresses("v4", 1, type=socket.SOCK_STREAM) == [("127.64.0.11", 1)]
    outer.__exit__()
    assert socket.getaddrinfo is not ORIGINAL
    with pytest.raises(socket.gaierror):
        addresses("v4.shop.svc.cluster.local", 1)
    inner.__exit__()
    assert socket.getaddrinfo is ORIGINAL


def test_another_librarys_getaddrinfo_stays_in_place(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", ORIGINAL)
    with ProcessNames(ShopNames()):
        ours = socket.getaddrinfo

        def theirs(*arguments, **options):
            return ours(*arguments, **options)

        socket.getaddrinfo = theirs
    assert socket.getaddrinfo is theirs
    assert theirs("127.0.0.1", 80) == ORIGINAL("127.0.0.1", 80)


async def test_asyncio_and_other_threads_resolve_names():
    loop = asyncio.get_running_loop()
    with ProcessNames(ShopNames()):
        found = await loop.getaddrinfo("v4", 8080, type=socket.SOCK_STREAM)
        in_thread = []
        thread = threading.Thread(target=lambda: in_thread.extend(addresses("v4", 8080)))
        thread.start()
        thread.join()
    assert found[0][4] == in_thread[0] == ("127.64.0.11", 8080)
