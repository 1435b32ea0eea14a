"""Tests of endpoints without optional fields, and of comparing slices."""

from dataclasses import replace

from userspace_proxy.model import Endpoint, SlicePort
from userspace_proxy.model.endpoints import CONTROLLER

from .samples import slice_of


def test_an_endpoint_without_conditions_is_ready():
    endpoint = Endpoint("192.0.2.1")
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (True, True, False)


def test_slices_with_the_same_ports_in_any_order_are_equal():
    ports = [SlicePort(name, 80, "TCP") for name in ("web", "dns", "")]
    item = slice_of("192.0.2.1", ports=ports)
    assert [port.name for port in item.ports] == ["", "dns", "web"]
    assert item == slice_of("192.0.2.1", ports=ports[::-1])


def test_only_slices_of_kubernetes_own_controller_are_managed():
    found = [replace(slice_of(), manager=one).is_managed for one in (CONTROLLER, "vm-sync", "")]
    assert found == [True, False, False]
