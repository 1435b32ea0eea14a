"""The facts about the node that the plan needs; ``test_agent`` changes the node's addresses."""

import pytest

from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.agent.watchers import node_now
from userspace_proxy.agent.watchers.node_now import NodeNow
from userspace_proxy.causes.nodes import no_node
from userspace_proxy.cluster import Snapshot
from userspace_proxy.facts import StatusFacts
from userspace_proxy.model import Node
from userspace_proxy.policy import PRIMARY
from userspace_proxy_testing.fakes.steering import FakeSteering

from ...status.views import make_frontend, make_port, make_two_sides

MISSING = Node("a", is_missing=True, similar=("a.b",))


class NoSteering(FakeSteering):
    name = "none"


async def test_only_loopback_addresses_are_known_without_steering():
    node = NodeNow(NoSteering(), Options(node_name="node-a"))
    await node.start(Supervisor())
    facts = node.facts_for(Snapshot({}))
    assert (facts.node_name, facts.addresses) == ("node-a", ("127.0.0.1",))
    assert facts.allow_loopback_endpoints
    await node.close()


def test_unreachable_node_ports_are_logged_once(caplog):
    node = NodeNow(FakeSteering(), Options(node_port_networks=(PRIMARY,)))
    for _ in range(2):
        node.facts_for(Snapshot({}))
    (record,) = caplog.records
    assert record.getMessage().startswith("node ports are not served: --nodeport-addresses=primary")


def test_a_missing_node_object_is_logged_and_shown_until_it_exists(caplog):
    caplog.set_level("INFO")
    node, shown = NodeNow(FakeSteering(), Options(node_name="a")), []
    for own in (None, MISSING, MISSING, Node("a")):
        node.facts_for(Snapshot({}, own))
        facts = StatusFacts()
        node.show(facts)
        shown.append(facts.no_node)
    assert shown == [None, no_node("a", ("a.b",)), no_node("a", ("a.b",)), None]
    assert [record.getMessage() for record in caplog.records] == [
        "node name may be wrong: there is no Node a (did you mean a.b?)",
        "this node's Node object exists now",
    ]


@pytest.mark.parametrize(("kind", "asked"), [(FakeSteering, ["10.96.0.10"]), (NoSteering, [])])
def test_a_missing_route_to_cluster_ips_is_shown_unless_steering_is_none(monkeypatch, kind, asked):
    refused = []
    monkeypatch.setattr(node_now, "route_refusal", lambda ip: refused.append(ip) or "unreachable")
    _, outside = make_two_sides()
    dns = make_frontend("10.96.0.10:53", "ClusterIP", "proxy port 20002")
    off = make_frontend("[fd00:96::a]:53", "ClusterIP", "", is_reached=False)
    facts = StatusFacts(ports=[make_port(frontends=(dns, off)), outside])
    NodeNow(kind(), Options()).show(facts)
    assert (facts.unrouted, refused) == (dict.fromkeys(asked, "unreachable"), asked)
