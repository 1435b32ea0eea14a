"""Tests of looking up host names as a program in a pod does."""

import pytest

from tests.unit.model.samples import service
from userspace_proxy.cluster import Store
from userspace_proxy.model import ServiceKey, ServiceType
from userspace_proxy.names import NDOTS, FoundName, ServiceNames, find_name, search_list
from userspace_proxy.names.host_addresses import candidates

SEARCH = search_list("shop", "cluster.local")


def find(host):
    store = Store()
    store.put_service(service(ServiceKey("shop", "web"), cluster_ips=("10.96.0.10", "fd00::10")))
    store.put_service(service(ServiceKey("shop", "pending"), cluster_ips=()))
    fields = {"type": ServiceType.EXTERNAL_NAME}
    for name, target in (("db", "db.example.com"), ("alias", "web.shop.svc.cluster.local")):
        key = ServiceKey("shop", name)
        store.put_service(service(key, (), (), external_name=target, **fields))
    return find_name(ServiceNames(store.snapshot()), host, SEARCH)


@pytest.mark.parametrize(
    "host",
    [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
    ],
)
def test_each_form_of_a_name_resolves_to_the_services_addresses(host):
    assert find(host) == FoundName("web.shop.svc.cluster.local.", ("10.96.0.10", "fd00::10"))


def test_an_external_name_refers_to_a_name_outside_the_cluster():
    assert find("db") == FoundName("db.shop.svc.cluster.local.", elsewhere="db.example.com")


def test_an_external_name_inside_the_cluster_resolves_to_its_targets_addresses():
    assert find("alias").ips == ("10.96.0.10", "fd00::10")


@pytest.mark.parametrize("host", ["none.shop.svc.cluster.local", "pending.shop.svc.cluster.local."])
def test_a_nonexistent_name_in_the_cluster_domain_is_not_looked_up_elsewhere(host):
    assert find(host) == FoundName(f"{host.removesuffix('.')}.")


@pytest.mark.parametrize("host", ["localhost", "www.example.com", "pending"])
def test_find_name_returns_none_for_relative_names_without_an_address_in_the_cluster(host):
    assert find(host) is None


SHOP = search_list("shop", "cluster.local")


def test_the_search_list_matches_a_pods_search_list():
    assert SHOP == ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        pytest.param("web", "web.shop.svc.cluster.local.", "web.", id="one-label"),
        pytest.param("web.shop.svc", "web.shop.svc.shop.svc.cluster.local.", "web.shop.svc.",
            id="with-dots"),
        pytest.param("a.b.c.d.e.f", "a.b.c.d.e.f.", "a.b.c.d.e.f.cluster.local.",
            id="five-dots-are-absolute-first"),
        pytest.param("web.example.com.", "web.example.com.", "web.example.com.", id="absolute"),
    ],
)  # fmt: skip
def test_candidate_names_follow_the_search_list(name, first, last):
    found = candidates(name, SHOP)
    assert (found[0], found[-1]) == (first, last)


def test_ndots_is_configurable():
    assert NDOTS == 5
    assert candidates("web.shop", SHOP, ndots=1)[0] == "web.shop."
