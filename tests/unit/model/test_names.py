"""Tests of the keys of objects, Services and Service ports."""

import pytest

from userspace_proxy.model import ServiceKey, ServicePortName, SliceKey


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        pytest.param(ServiceKey("shop", "cart"), "shop/cart", id="service"),
        pytest.param(SliceKey("shop", "cart-x7"), "shop/cart-x7", id="slice"),
        pytest.param(ServicePortName("shop", "cart", "http"), "shop/cart:http", id="service-port"),
        pytest.param(ServicePortName("shop", "cart", ""), "shop/cart", id="port-without-a-name"),
    ],
)
def test_an_object_key_prints_as_in_kubernetes(identity, text):
    assert str(identity) == text
    assert f"{identity}" == text


def test_a_service_port_name_contains_its_service():
    assert ServicePortName("shop", "cart", "http").service == ServiceKey("shop", "cart")


def test_keys_are_sorted_by_namespace_name_and_port():
    names = [
        ServicePortName("shop", "web", ""),
        ServicePortName("shop", "cart", "http"),
        ServicePortName("shop", "cart", "dns"),
        ServicePortName("bank", "zeta", "http"),
    ]
    assert sorted(names) == list(reversed(names))


def test_a_service_port_matches_its_namespace_service_and_own_name():
    assert ServicePortName("shop", "cart", "http").prefixes == (
        "shop",
        "shop/cart",
        "shop/cart:http",
    )


@pytest.mark.parametrize("key", [ServiceKey("shop", "web"), ServiceKey("kube-system", "kube-dns")])
def test_a_service_key_is_parsed_from_text(key):
    assert ServiceKey.read(str(key)) == key
