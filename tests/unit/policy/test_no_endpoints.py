"""Why a Service port has no usable endpoint: a code and a sentence for each mistake."""

from dataclasses import replace

import pytest

from userspace_proxy.model import (
    CauseCode,
    Endpoint,
    IPFamily,
    Protocol,
    ServicePort,
    SlicePort,
)
from userspace_proxy.policy import (
    EndpointIndex,
    EndpointVerdict,
    NodeFacts,
    Scope,
    usable_endpoints,
    why_none_usable,
)

from ..model.samples import GONE, HTTP, NOT_READY, POD_A, POD_B, POD_C, service, slice_of

A, B, C = POD_A.ip, POD_B.ip, POD_C.ip
WEB = (("app", "web"), ("tier", "front"))
HERE, THERE = "node-1", "node-2"


def why(*slices, of=None, port=HTTP, family=IPFamily.IPV4, scope=Scope.CLUSTER):
    """Return why none of the slices' endpoints is usable on node-1."""
    of, index = of or service(), EndpointIndex(slices)
    usable = usable_endpoints(
        index,
        port=port.name,
        protocol=Protocol(port.protocol),
        family=family,
        facts=NodeFacts(node_name=HERE),
        scope=scope,
    )
    assert not usable.serving.used_outside
    return why_none_usable(of, port, family, scope, index, usable.verdicts)


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        pytest.param(
            service(selector=WEB), "no EndpointSlice belongs to shop/cart", id="with-a-selector"
        ),
        pytest.param(
            service(),
            "no EndpointSlice belongs to shop/cart, and it has no selector",
            id="without-a-selector",
        ),
        pytest.param(
            service(notes=("x", "Endpoints shop/cart has the label y, so no slice is made of it")),
            "Endpoints shop/cart has the label y, so no slice is made of it",
            id="endpoints-that-are-not-mirrored",
        ),
    ],
)
def test_no_slice_belongs_to_it(of, sentence):
    cause = why(of=of)
    assert (cause.code, str(cause), cause.object) == (CauseCode.NO_SLICE, sentence, "shop/cart")


def test_a_selector_is_named_in_the_hint_as_kubectl_takes_it():
    assert "app=web,tier=front" in why(of=service(selector=WEB)).hint


def test_a_long_selector_is_cut_in_sentences():
    selector = tuple((f"label-{n}", "x" * 60) for n in range(100))
    empty, missing = (
        why(slice_of(), of=service(selector=selector)),
        why(of=service(selector=selector)),
    )
    assert max(len(text) for text in (str(empty), empty.hint, missing.hint)) < 400
    assert str(empty).endswith("…")


def test_it_has_slices_of_the_other_family_only():
    cause = why(slice_of(A), family=IPFamily.IPV6)
    assert cause.code is CauseCode.NO_SLICE
    assert str(cause) == "no EndpointSlice of IPv6 belongs to shop/cart, only of IPv4"


@pytest.mark.parametrize(
    ("of", "slices", "sentence"),
    [
        pytest.param(
            service(selector=WEB),
            [slice_of()],
            "its EndpointSlice is empty: no pod with an address was found for selector "
            "app=web,tier=front",
            id="with-a-selector",
        ),
        pytest.param(service(), [slice_of()], "its EndpointSlice is empty", id="without"),
        pytest.param(
            service(),
            [slice_of(), slice_of(key="cart-2")],
            "its 2 EndpointSlices are empty",
            id="several",
        ),
    ],
)
def test_its_slices_are_empty(of, slices, sentence):
    cause = why(*slices, of=of)
    assert (cause.code, str(cause)) == (CauseCode.SLICE_EMPTY, sentence)


@pytest.mark.parametrize(
    ("port", "targets", "sentence"),
    [
        pytest.param(
            HTTP,
            [("web", "TCP")],
            'its endpoints have no port named "http"; they have "web"',
            id="another-name",
        ),
        pytest.param(
            HTTP,
            [("web", "TCP"), ("", "TCP")],
            'its endpoints have no port named "http"; they have "web", an unnamed one',
            id="several-names",
        ),
        pytest.param(
            ServicePort("", 80, "TCP"),
            [("web", "TCP")],
            'its endpoints have no unnamed port; they have "web"',
            id="unnamed",
        ),
        pytest.param(
            ServicePort("dns", 53, "UDP"),
            [("dns", "TCP")],
            'its endpoints have a port named "dns" only for TCP, not UDP',
            id="another-protocol",
        ),
        pytest.param(
            HTTP, [], 'its endpoints have no port named "http", nor any other', id="no-port"
        ),
    ],
)
def test_its_endpoints_lack_the_port(port, targets, sentence):
    ports = tuple(SlicePort(name, 8080, protocol) for name, protocol in targets)
    cause = why(slice_of(A, ports=ports), port=port)
    assert (cause.code, str(cause)) == (CauseCode.PORT_NAME_MISSING, sentence)


def test_its_endpoints_have_the_port_without_a_number():
    unnumbered = replace(slice_of(A, ports=()), unnumbered=("http",))
    cause = why(unnumbered)
    assert (cause.code, cause.object) == (
        CauseCode.PORT_NAME_MISSING,
        "EndpointSlices of shop/cart",
    )
    assert cause.sentence == f'port "http" of EndpointSlice {unnumbered.key} has no number'
    assert cause.hint == "Write its number into the EndpointSlice, which means all ports without it"
    unnamed = why(replace(unnumbered, unnumbered=("",)), port=replace(HTTP, name=""))
    assert unnamed.sentence == f"the unnamed port of EndpointSlice {unnumbered.key} has no number"
    elsewhere = replace(unnumbered, family=IPFamily.IPV6, endpoints=())
    assert "nor any other" in str(why(slice_of(A, ports=()), elsewhere))


def test_a_port_that_the_controller_left_out_has_a_wrong_target():
    assert str(why(slice_of(A, ports=()), of=service(selector=WEB))) == (
        'its endpoints have no port named "http", nor any other: targetPort is a name that no '
        "container port of its pods has"
    )


@pytest.mark.parametrize(
    ("endpoints", "scope", "code", "sentence"),
    [
        pytest.param(
            [Endpoint(A, **NOT_READY)],
            Scope.CLUSTER,
            CauseCode.NOT_READY,
            "its only endpoint is not ready",
            id="one-not-ready",
        ),
        pytest.param(
            [Endpoint(A, **NOT_READY), Endpoint(B, **NOT_READY), Endpoint(C, **GONE)],
            Scope.CLUSTER,
            CauseCode.NOT_READY,
            "none of its 3 endpoints is ready, and 1 of them is terminating",
            id="none-ready",
        ),
        pytest.param(
            [Endpoint(A, node=THERE)],
            Scope.LOCAL,
            CauseCode.NOT_LOCAL,
            "its only endpoint is on node node-2, and the traffic policy is Local",
            id="on-another-node",
        ),
        pytest.param(
            [Endpoint(A)],
            Scope.LOCAL,
            CauseCode.NOT_LOCAL,
            "its only endpoint has no nodeName, and the traffic policy is Local",
            id="on-an-unnamed-node",
        ),
        pytest.param(
            [Endpoint(A, node=THERE), Endpoint(B, node="node-3")],
            Scope.LOCAL_FROM_OUTSIDE,
            CauseCode.NOT_LOCAL,
            "its 2 endpoints are on other nodes, and the traffic policy is Local",
            id="on-other-nodes",
        ),
        pytest.param(
            [Endpoint(A, node=THERE), Endpoint(B, node=HERE, **NOT_READY)],
            Scope.LOCAL,
            CauseCode.NOT_LOCAL,
            "none of its 2 endpoints is usable: 1 not on this node, 1 not ready",
            id="elsewhere-or-not-ready",
        ),
        pytest.param(
            [Endpoint("127.0.0.1"), Endpoint(A, **NOT_READY)],
            Scope.CLUSTER,
            CauseCode.ENDPOINT_NOT_ALLOWED,
            "none of its 2 endpoints is usable: 1 not ready, 1 refused: a loopback address is the "
            "node itself",
            id="refused-or-not-ready",
        ),
        pytest.param(
            [Endpoint("127.0.0.1")],
            Scope.CLUSTER,
            CauseCode.ENDPOINT_NOT_ALLOWED,
            "its only endpoint is refused: a loopback address is the node itself",
            id="refused",
        ),
    ],
)
def test_its_endpoints_are_not_usable(endpoints, scope, code, sentence):
    cause = why(slice_of(*endpoints), scope=scope)
    assert (cause.code, str(cause)) == (code, sentence)


def test_the_hint_names_the_policy_that_excludes_other_nodes():
    elsewhere = slice_of(Endpoint(A, node=THERE))
    assert why(elsewhere, scope=Scope.LOCAL).hint.startswith("internalTrafficPolicy")
    outside = why(elsewhere, scope=Scope.LOCAL_FROM_OUTSIDE)
    assert outside.hint.startswith("externalTrafficPolicy")


def test_endpoints_that_have_ended_are_not_waited_for():
    ended = Endpoint(A, **GONE)
    assert str(why(slice_of(ended))) == (
        "its only endpoint is terminating and doesn't serve any more"
    )
    both = why(slice_of(ended, Endpoint(B, **NOT_READY)))
    assert str(both) == "none of its 2 endpoints is ready, and 1 of them is terminating"


@pytest.mark.parametrize(
    ("endpoints", "scope", "hint"),
    [
        pytest.param([Endpoint(A, weight=0)], Scope.CLUSTER, "remove the annotation", id="drained"),
        pytest.param(
            [Endpoint(A, weight=0), Endpoint(B, **NOT_READY)],
            Scope.CLUSTER,
            "remove the annotation",
            id="drained-or-not-ready",
        ),
        pytest.param(
            [Endpoint(A, node=THERE), Endpoint(B, node=HERE, **NOT_READY)],
            Scope.LOCAL,
            "internalTrafficPolicy: Cluster uses endpoints of all nodes",
            id="elsewhere-or-not-ready",
        ),
    ],
)
def test_what_is_not_usable_has_a_remedy(endpoints, scope, hint):
    assert hint in why(slice_of(*endpoints), scope=scope).hint


def test_of_many_reasons_the_first_are_named():
    pods = [POD_A._replace(port=1 + n) for n in range(9)]
    verdicts = [EndpointVerdict(pod, False, f"refused: {pod.port}") for pod in pods]
    index = EndpointIndex(())
    cause = why_none_usable(service(), HTTP, IPFamily.IPV4, Scope.CLUSTER, index, verdicts)
    assert str(cause) == (
        "none of its 9 endpoints is usable: 1 refused: 1, 1 refused: 2, 1 refused: 3, "
        "1 refused: 4, 1 refused: 5, …"
    )
