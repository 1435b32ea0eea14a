import pytest

from userspace_proxy.causes.endpoints import no_datagram, silent
from userspace_proxy.facts import Level, PortState
from userspace_proxy_kubectl.nodes.endpoints import Extent
from userspace_proxy_kubectl.nodes.unanswered import with_unanswered

from .views import OTHER, POD, answer_of, failing, flows, merged_of, one_port, web, without_answer


def test_a_node_with_unanswered_flows_needs_attention_if_other_nodes_are_answered():
    merged = merged_of(*(answer_of(str(n), flows(unanswered=9 * (n == 3))) for n in range(1, 4)))
    (port,) = merged.ports
    (group,) = port.groups
    assert (group.nodes, group.level, group.state) == (
        ("3",), Level.ATTENTION, PortState.UNANSWERED,
    )  # fmt: skip
    assert group.causes == (no_datagram(POD).replace(count=9),)
    assert (port.served, port.mark) == (2, Level.ATTENTION)
    assert [(one.extent, one.answered) for one in port.endpoints] == [(Extent.SOME, ("1", "2"))]
    assert [one.nodes for one in merged.incidents] == [("3",)]
    assert [row.unhealthy for row in merged.rows if row.node == "3"] == [1]


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([answer_of("b", flows(unanswered=5))], id="no-node-is-answered"),
        pytest.param([], id="it-is-the-only-node"),
        pytest.param([answer_of("b", flows(address=OTHER))], id="another-endpoint-answers"),
        pytest.param([answer_of("b", flows("other"))], id="another-service-is-answered"),
        pytest.param(
            [answer_of("b", flows(), problem=without_answer("b").problem)], id="the-answer-is-old"
        ),
    ],
)
def test_a_protocol_without_replies_is_not_reported(others):
    port = next(
        one for one in merged_of(answer_of("a", flows(unanswered=9)), *others).ports if one.unserved
    )
    assert (port.groups, port.mark) == ((), None)


def test_a_few_unanswered_flows_are_not_reported():
    port = one_port(answer_of("a", flows(unanswered=2)), answer_of("b", flows()))
    assert port.groups == ()


def test_known_causes_of_an_endpoint_are_not_replaced_by_unanswered_flows():
    sick = web(failing(silent(POD), unanswered_flows=9), protocol="UDP")
    given = [answer_of("a", sick), answer_of("b", flows()), without_answer("c")]
    assert with_unanswered(given) == given
