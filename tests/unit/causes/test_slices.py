"""What the remedies about a Service's slices depend on."""

import pytest

from userspace_proxy.causes.say import object_of, remedy
from userspace_proxy.causes.slices import (
    no_port,
    none_local,
    none_ready,
    other_protocol,
    slice_elsewhere,
    slice_orphaned,
)
from userspace_proxy.model import SliceKey

from ..model.samples import CART


@pytest.mark.parametrize(
    ("name", "about", "elsewhere", "orphaned"),
    [
        pytest.param(
            "cart-1",
            "EndpointSlice shop/cart-1",
            "A slice belongs to Services of its own namespace",
            "Set its label kubernetes.io/service-name to cart",
            id="slice",
        ),
        pytest.param(
            "cart-1:0:IPv4",
            "Endpoints shop/cart-1",
            "It belongs to the Service of its own namespace",
            "Its name must be the Service's: cart",
            id="mirrored-endpoints",
        ),
    ],
)
def test_what_cannot_be_matched_is_named_as_it_is_written(name, about, elsewhere, orphaned):
    item = SliceKey("shop", name)
    causes = slice_elsewhere(CART, item), slice_orphaned(CART, item, "carts")
    assert [object_of(cause) for cause in causes] == [about, about]
    assert [remedy(cause) for cause in causes] == [f"{elsewhere}: move it to shop", orphaned]


@pytest.mark.parametrize(
    ("of_pods", "of_slices", "what"),
    [
        pytest.param(
            other_protocol("dns", "UDP", ("TCP",), has_selector=True),
            other_protocol("dns", "UDP", ("TCP",), has_selector=False),
            "container",
            id="protocol",
        ),
        pytest.param(
            no_port("http", has_selector=True),
            no_port("http", has_selector=False),
            "container",
            id="port",
        ),
        pytest.param(
            none_ready(2, 0, ("pods", "-n", "shop")),
            none_ready(2, 0, ()),
            "kubectl",
            id="not-ready",
        ),
    ],
)
def test_without_a_selector_the_remedy_is_about_slices_not_pods(of_pods, of_slices, what):
    assert what in remedy(of_pods)
    assert what not in remedy(of_slices)
    assert "EndpointSlice" in remedy(of_slices)


def test_pods_that_have_ended_are_listed_others_described():
    assert remedy(none_ready(2, 0, ("pods", "-n", "shop"))) == "kubectl describe pods -n shop"
    assert remedy(none_ready(2, 1, ("pods", "-n", "shop"))) == "kubectl get pods -n shop"


@pytest.mark.parametrize(("unknown", "is_named"), [(0, False), (1, True)])
def test_the_field_of_an_endpoints_node_is_named_where_that_is_unknown(unknown, is_named):
    hint = remedy(none_local(2, unknown, "node-2", "externalTrafficPolicy"))
    assert hint.startswith("externalTrafficPolicy: Cluster")
    assert ("nodeName" in hint) is is_named
