from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.model import DataPath
from userspace_proxy.status.path_families import path_families

from .readings import read_samples
from .views import make_port, replace

WEB, CART = '{service="web"}', '{service="cart"}'


def value(families, name, **labels):
    return read_samples(families).get((f"userspace_proxy_{name}", tuple(sorted(labels.items()))))


def test_a_service_port_that_was_on_the_kernel_path_has_its_connections_from_the_first_one_on():
    ports = {
        WEB: replace(make_port(), path=PathView(DataPath.KERNEL, kernel_connections=0)),
        CART: replace(make_port("cart"), path=PathView(kernel_connections=12)),
    }
    name = "kernel_path_connections_total"
    assert value(path_families(ports), name, service="web") is None
    assert value(path_families(ports), name, service="cart") == 12
    path = "service_port_path"
    assert value(path_families(ports), path, service="web", path="kernel") == 1
    assert value(path_families(ports), path, service="cart", path="userspace") is None


def test_connections_that_are_not_counted_have_no_series():
    ports = {WEB: replace(make_port(), path=PathView(DataPath.KERNEL))}
    assert value(path_families(ports), "kernel_path_connections_total", service="web") is None
