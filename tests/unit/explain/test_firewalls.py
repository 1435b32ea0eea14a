import pytest

from tests.unit.status.views import NOW, make_endpoint, make_port, replace
from userspace_proxy.causes.endpoints import dropped_here
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.explain import explain
from userspace_proxy.explain.firewalls import firewall_clause, firewall_steps
from userspace_proxy.facts import LAST_MINUTE_S, FirewallFacts, Level, SteeringState
from userspace_proxy.model import DataPath

from .subjects import make_subject

INPUT = FirewallFacts("ip filter INPUT", "its policy is drop", "nft insert x")


def answered(seconds_ago):
    return make_port(endpoints=(make_endpoint("10.244.1.7:80", sent_at=NOW - seconds_ago),))


def taken():
    """Return a Service port whose clients another program's chain drops."""
    port = make_port(problem="nftables chain inet ours pre of another program drops packets to it")
    port.taken_by = "inet ours pre"
    return port


def dropping():
    """Return one with an endpoint that such a chain drops packets to."""
    cause = dropped_here("10.244.1.7:80", "a chain drops it")
    return make_port(endpoints=(make_endpoint("10.244.1.7:80", cause=cause),))


def test_a_chain_that_lets_clients_pass_may_drop_others():
    subject = make_subject(answered(1), firewalls=(INPUT,))
    explanation = explain(subject)
    assert explanation.level is Level.OK
    clause = firewall_clause(subject.node, (answered(1),), "", NOW)
    assert explanation.sentence == f"{explain(make_subject(answered(1))).sentence}{clause}"
    assert INPUT.chain in clause


@pytest.mark.parametrize(
    ("seconds_ago", "family", "client", "level"),
    [
        pytest.param(LAST_MINUTE_S - 1, "IPv4", "", None, id="lately"),
        pytest.param(LAST_MINUTE_S, "IPv4", "", Level.TROUBLE, id="a-while-ago"),
        pytest.param(NOW, "IPv4", "", Level.TROUBLE, id="never"),
        pytest.param(1, "", "", None, id="both-families"),
        pytest.param(1, "IPv6", "", Level.TROUBLE, id="other-family"),
        pytest.param(1, "IPv4", "10.0.0.9", Level.TROUBLE, id="client"),
    ],
)
def test_a_chain_is_no_problem_of_clients_that_passed_it(seconds_ago, family, client, level):
    port = answered(seconds_ago)
    node = make_subject(
        port, firewalls=(FirewallFacts("x", "its policy is drop", family=family),)
    ).node
    (step,) = firewall_steps(node, (port,), client, NOW)
    assert step.level is level
    assert bool(firewall_clause(node, (port,), client, NOW)) is (level is None)


def test_another_problem_of_the_service_is_the_sentence_alone():
    refused = make_port(port="metrics", endpoints=(), reason="none is ready")
    explanation = explain(make_subject(answered(1), refused, firewalls=(INPUT,)))
    assert explanation.sentence == f"Port metrics: {refused.state.sentence}"


@pytest.mark.parametrize(
    ("steering", "make", "shown"),
    [
        pytest.param("nftables", make_port, 1, id="none-known"),
        pytest.param("none", make_port, 0, id="no-steering"),
        pytest.param("nftables", taken, 0, id="blamed-by-the-address"),
        pytest.param("nftables", dropping, 0, id="blamed-by-an-endpoint"),
    ],
)
def test_that_no_chain_is_known_is_a_step_where_none_is_blamed(steering, make, shown):
    subject = make_subject(make(), steering=SteeringState(steering))
    steps = firewall_steps(subject.node, subject.ports, "", NOW)
    assert [step.level for step in steps] == [Level.OK] * shown


def test_chains_that_the_kernel_path_passes_are_not_said_to_be_known():
    port = replace(make_port(), path=PathView(DataPath.KERNEL))
    node = make_subject(port).node
    (step,) = firewall_steps(node, (port,), "", NOW)
    assert step.level is None
    assert firewall_clause(node, (port,), "", NOW) == "", "it isn't about a chain"
