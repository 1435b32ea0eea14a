"""Tests of Services as values."""

import dataclasses

from userspace_proxy.model import Service, ServiceKey, ServicePort

CART = ServiceKey("shop", "cart")
HTTP = ServicePort("http", 80, "TCP")


def test_services_are_compared_by_their_fields():
    service = Service(CART, (HTTP,), cluster_ips=("198.51.100.7",))
    assert dataclasses.replace(service) == service
    assert dataclasses.replace(service, created="2026-01-01T00:00:00Z") != service


def test_a_target_port_has_a_name_unless_it_is_a_number():
    assert [dataclasses.replace(HTTP, target=t).target_name for t in ("web", "80")] == ["web", ""]


def test_addresses_combines_cluster_external_and_load_balancer_ips():
    given = {"cluster_ips": ("a",), "external_ips": ("b",), "load_balancer_ips": ("c", "a")}
    assert Service(CART, (HTTP,), **given).addresses == ("a", "b", "c", "a")
