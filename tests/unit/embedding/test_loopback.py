"""Loopback addresses for Services."""

from userspace_proxy.embedding.loopback import free_loopback
from userspace_proxy.model import ServiceKey

WEB = ServiceKey("shop", "web")


def test_the_loopback_address_is_stable_and_avoids_taken_ones():
    first = free_loopback(WEB, (), "a")
    assert free_loopback(WEB, (), "a") == first
    second = free_loopback(WEB, {first}, "a")
    assert second != first
    assert second.startswith("127.")


def test_two_proxies_choose_different_addresses_for_services_of_one_name():
    assert free_loopback(WEB, (), "a") != free_loopback(WEB, (), "b")
