import pytest
from msgspec.structs import replace

from userspace_proxy.causes.endpoints import no_datagram, silent
from userspace_proxy_kubectl.nodes.unanswered import with_unanswered

from .views import (
    NOW,
    OTHER,
    POD,
    answer_of,
    answering,
    failing,
    flows,
    merged_of,
    one_port,
    web,
    without_answer,
)


def test_a_few_unanswered_flows_or_flows_of_an_unusable_endpoint_are_not_reported():
    few, unusable = answer_of("a", flows(unanswered=2)), answer_of("a", flows(unanswered=9))
    (port,) = unusable.status.ports
    port.endpoints = [replace(port.endpoints[0], is_usable=False)]
    for one in (few, unusable):
        assert one_port(one, answer_of("b", flows())).groups == ()


def test_known_causes_of_an_endpoint_are_not_replaced_by_unanswered_flows():
    sick = web(failing(silent(POD), unanswered_flows=9), protocol="UDP")
    given = [answer_of("a", sick), answer_of("b", flows()), without_answer("c")]
    assert with_unanswered(given) == given


def test_a_node_whose_flows_alone_are_unanswered_has_a_cause_with_their_number():
    port = one_port(answer_of("a", flows()), answer_of("b", flows(unanswered=9)))
    assert [group.causes for group in port.groups] == [(no_datagram(POD).replace(count=9),)]


def _dns(at=NOW, **changes):
    return web(answering(sent_at=at, answered_at=at), name="dns", protocol="UDP", **changes)


@pytest.mark.parametrize(
    ("flow", "facts"),
    [
        pytest.param(flows(address=OTHER), {}, id="another-endpoint-answers"),
        pytest.param(_dns(namespace="other"), {}, id="another-namespace-is-answered"),
        pytest.param(_dns(port="other"), {}, id="another-port-is-answered"),
        pytest.param(flows(), {"problem": without_answer("b").problem}, id="the-answer-is-old"),
        pytest.param(_dns(1.0), {}, id="the-endpoint-answered-before-the-flows"),
    ],
)
def test_unanswered_flows_have_no_cause_without_a_recent_answer_of_the_endpoint(flow, facts):
    merged = merged_of(answer_of("a", flows(unanswered=9)), answer_of("b", flow, **facts))
    port = next(one for one in merged.ports if one.unserved)
    assert (port.groups, port.mark) == ((), None)
