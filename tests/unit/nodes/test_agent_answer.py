"""The values of nodes' answers have defaults of what is unknown."""

from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes


def test_a_node_begins_without_an_answer():
    node = AgentAnswer("node-1")
    assert (node.agents, node.status, node.problem, node.behind) == ((), None, None, ())


def test_unread_digests_are_none():
    assert AllNodes().digests is None
