"""Short names are searched as in a pod."""

import pytest

from userspace_proxy.names import NDOTS, candidates, search_list

SHOP = search_list("shop", "cluster.local")


def test_the_search_list_is_that_of_a_pod():
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
def test_the_order_of_candidates(name, first, last):
    found = candidates(name, SHOP)
    assert (found[0], found[-1]) == (first, last)


def test_the_number_of_dots_that_makes_a_name_absolute_can_be_chosen():
    assert NDOTS == 5
    assert candidates("web.shop", SHOP, ndots=1)[0] == "web.shop."
