"""Tests of the cause for which a Service port has no usable endpoint."""

from dataclasses import replace

import pytest

from userspace_proxy.causes.notes import cause_of_slice
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.causes.slices import (
    no_port,
    no_slice,
    no_slice_nor_selector,
    no_slice_of_family,
    none_allowed,
    none_allowed_undrained,
    none_local,
    none_local_nor_usable,
    none_ready,
    none_undrained,
    none_usable,
    not_mirrored,
    other_port_names,
    other_protocol,
    port_unnumbered,
    selects_no_pod,
    slice_empty,
    slice_headless,
)
from userspace_proxy.model import (
    Endpoint,
    IPFamily,
    Protocol,
    ServicePort,
    SlicePort,
)
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.policy import (
    EndpointIndex,
    EndpointVerdict,
    NodeFacts,
    PortName,
    Refusals,
    Scope,
    none_usable_reason,
    usable_endpoints,
)

from ..model.samples import CART, GONE, HTTP, NOT_READY, POD_A, POD_B, POD_C, service, slice_of

A, B, C = POD_A.ip, POD_B.ip, POD_C.ip
WEB = (("app", "web"), ("tier", "front"))
SELECTOR = "app=web,tier=front"
PODS = ("pods", "-n", "shop", "-l", SELECTOR)
NO_ADDRESS = NoteKind.ADDRESS_WRONG("endpoints[0].addresses", "'x' is not an IP address")
NOT_MIRRORED = NoteKind.NOT_TO_MIRROR("shop/cart", "a lock")
HERE, THERE = "node-1", "node-2"
INSIDE, OUTSIDE = "internalTrafficPolicy", "externalTrafficPolicy"
DRAINED, REFUSED = "drained (weight 0)", "refused: a loopback address"
UNNAMED = replace(HTTP, name="")


def why(*slices, of=None, port=HTTP, family=IPFamily.IPV4, scope=Scope.CLUSTER):
    """Return the cause for which no endpoint of the slices is usable on node-1."""
    of, index = of or service(), EndpointIndex(slices)
    at = PortName(family, port.name, Protocol(port.protocol))
    usable = usable_endpoints(index, at, Refusals(NodeFacts(node_name=HERE)), scope)
    assert not usable.serving.used_outside
    return none_usable_reason(of, port, family, scope, index, usable.verdicts)


@pytest.mark.parametrize(
    ("of", "cause"),
    [
        (service(selector=WEB), no_slice(CART, CART.name, SELECTOR)),
        (service(), no_slice_nor_selector(CART, "cart")),
        (
            service(notes=(NoteKind.HEADER_WITHOUT_TCP(), NOT_MIRRORED)),
            not_mirrored(CART, "cart", "a lock"),
        ),
    ],
)
def test_a_missing_slice_is_the_cause_of_no_endpoints(of, cause):
    assert why(of=of) == cause


def test_a_long_selector_is_truncated_in_sentences():
    of = service(selector=tuple((f"label-{n}", "x" * 60) for n in range(100)))
    empty, missing = why(slice_of(), of=of), why(of=of)
    assert max(len(text) for text in (say(empty), remedy(empty), remedy(missing))) < 400
    assert say(empty).endswith("…")
    # The command has no selector, because a truncated one would list other pods.
    assert remedy(empty).endswith("pods -n shop")


def test_a_slice_with_the_headless_label_is_the_cause_of_no_endpoints():
    """kube-proxy also ignores such a slice, even if it has endpoints."""
    item = replace(slice_of(POD_A.ip), is_headless=True)
    assert why(item) == slice_headless(CART, item.key, False)
    managed = replace(item, manager="endpointslice-controller.k8s.io")
    assert why(managed, of=service(selector=WEB)) == slice_headless(CART, item.key, True)


def test_a_port_with_only_slices_of_the_other_family_names_that_family():
    cause = why(slice_of(A), family=IPFamily.IPV6)
    assert cause == no_slice_of_family(CART, "IPv6", "IPv4")


@pytest.mark.parametrize(
    ("of", "slices", "cause"),
    [
        (service(selector=WEB), [slice_of()], selects_no_pod(CART, 1, SELECTOR, PODS)),
        (service(), [slice_of()], slice_empty(CART, 1)),
        (service(), [slice_of(), slice_of(key="cart-2")], slice_empty(CART, 2)),
        (
            service(selector=WEB),
            [slice_of(), replace(slice_of(key="cart-2"), notes=(NO_ADDRESS,))],
            cause_of_slice(NO_ADDRESS, slice_of(key="cart-2").key),
        ),
        (
            service(),
            [slice_of(), replace(slice_of(family=IPFamily.IPV6), notes=(NO_ADDRESS,))],
            slice_empty(CART, 1),
        ),
    ],
)
def test_empty_slices_are_the_cause_of_no_endpoints(of, slices, cause):
    assert why(*slices, of=of) == cause


@pytest.mark.parametrize("selector", [WEB, ()], ids=["with-a-selector", "without"])
@pytest.mark.parametrize(
    ("port", "targets", "row", "params"),
    [
        (HTTP, [("web", "TCP")], other_port_names, {"names": ("web",)}),
        (HTTP, [("web", "TCP"), ("", "TCP")], other_port_names, {"names": ("", "web")}),
        (UNNAMED, [("web", "TCP")], other_port_names, {"names": ("web",)}),
        (
            ServicePort("dns", 53, "UDP"),
            [("dns", "TCP")],
            other_protocol,
            {"protocol": "UDP", "others": ("TCP",)},
        ),
        # The EndpointSlice controller omits a port if the pod lacks its target port.
        (HTTP, [], no_port, {}),
        (replace(HTTP, target="web"), [], no_port, {"target": "web"}),
    ],
)
def test_a_port_missing_from_all_endpoints_is_the_cause(port, targets, row, params, selector):
    ports = tuple(SlicePort(name, 8080, protocol) for name, protocol in targets)
    source = {} if row is other_port_names else {"has_selector": bool(selector)}
    cause = why(slice_of(A, ports=ports), port=port, of=service(selector=selector))
    assert cause == row(port.name, **params, **source)


@pytest.mark.parametrize("port", [HTTP, UNNAMED], ids=["named", "unnamed"])
def test_an_unnumbered_port_is_the_cause_of_no_endpoints(port):
    unnumbered = replace(slice_of(A, ports=()), unnumbered=(port.name,))
    assert why(unnumbered, port=port) == port_unnumbered(CART, port.name, unnumbered.key)
    elsewhere = replace(unnumbered, family=IPFamily.IPV6, endpoints=())
    assert why(slice_of(A, ports=()), elsewhere, port=port) == no_port(port.name, False)


@pytest.mark.parametrize(
    ("endpoints", "scope", "cause"),
    [
        ([Endpoint(A, node=THERE, **NOT_READY)], Scope.CLUSTER, none_ready(1, 0, PODS, THERE)),
        ([Endpoint(A, **GONE)], Scope.CLUSTER, none_ready(1, 1, PODS)),
        (
            [Endpoint(A, **NOT_READY), Endpoint(B, **NOT_READY), Endpoint(C, **GONE)],
            Scope.CLUSTER,
            none_ready(3, 1, PODS),
        ),
        ([Endpoint(A, node=THERE)], Scope.LOCAL, none_local(1, 0, THERE, INSIDE)),
        ([Endpoint(A)], Scope.LOCAL, none_local(1, 1, "", INSIDE)),
        ([Endpoint(A, node=THERE), Endpoint(B)], Scope.LOCAL, none_local(2, 1, THERE, INSIDE)),
        (
            [Endpoint(A, node=THERE), Endpoint(B, node="node-3")],
            Scope.LOCAL_FROM_OUTSIDE,
            none_local(2, 0, THERE, OUTSIDE),
        ),
        (
            [Endpoint(A, node=THERE), Endpoint(B, node=HERE, **NOT_READY)],
            Scope.LOCAL,
            none_local_nor_usable(2, ("1 not on this node", "1 not ready"), INSIDE),
        ),
        (
            [Endpoint("127.0.0.1"), Endpoint(A, node=THERE)],
            Scope.LOCAL_FROM_OUTSIDE,
            none_local_nor_usable(2, ("1 not on this node", f"1 {REFUSED}"), OUTSIDE),
        ),
        (
            [Endpoint("127.0.0.1"), Endpoint(A, **NOT_READY)],
            Scope.CLUSTER,
            none_allowed(2, ("1 not ready", f"1 {REFUSED}")),
        ),
        ([Endpoint("127.0.0.1")], Scope.CLUSTER, none_allowed(1, (REFUSED,))),
        ([Endpoint(A, weight=0)], Scope.CLUSTER, none_undrained(1, (DRAINED,), CART)),
        (
            [Endpoint(A, weight=0), Endpoint(B, **NOT_READY)],
            Scope.CLUSTER,
            none_undrained(2, (f"1 {DRAINED}", "1 not ready"), CART),
        ),
        (
            [Endpoint(A, weight=0), Endpoint("127.0.0.1")],
            Scope.CLUSTER,
            none_allowed_undrained(2, (f"1 {DRAINED}", f"1 {REFUSED}"), CART),
        ),
    ],
)
def test_unusable_endpoints_are_counted_by_reason_in_the_cause(endpoints, scope, cause):
    assert why(slice_of(*endpoints), scope=scope, of=service(selector=WEB)) == cause


def test_without_a_selector_no_command_lists_unready_pods():
    assert why(slice_of(Endpoint(A, **NOT_READY))) == none_ready(1, 0, ())


def test_the_cause_of_unusable_endpoints_contains_all_their_reasons():
    pods = [POD_A._replace(port=1 + n) for n in range(9)]
    verdicts = [EndpointVerdict(pod, False, f"refused: {pod.port}") for pod in pods]
    index = EndpointIndex(())
    cause = none_usable_reason(service(), HTTP, IPFamily.IPV4, Scope.CLUSTER, index, verdicts)
    assert cause == none_usable(9, tuple(f"1 refused: {number}" for number in range(1, 10)))
