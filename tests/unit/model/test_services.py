"""Services as values."""

import dataclasses

from userspace_proxy.model import Service, ServiceKey, ServicePort, ServiceType

CART = ServiceKey("shop", "cart")
HTTP = ServicePort("http", 80, "TCP")


def test_a_minimal_service_is_a_cluster_ip_without_affinity():
    service = Service(CART, (HTTP,))
    assert service.type is ServiceType.CLUSTER_IP
    assert (service.affinity_timeout_s, service.proxy_name) == (None, None)
    assert (service.is_headless, service.has_headless_label) == (False, False)
    assert (service.is_internal_local, service.is_external_local) == (False, False)


def test_services_are_compared_by_their_fields():
    service = Service(CART, (HTTP,), cluster_ips=("198.51.100.7",))
    assert dataclasses.replace(service) == service
    assert dataclasses.replace(service, created="2026-01-01T00:00:00Z") != service
