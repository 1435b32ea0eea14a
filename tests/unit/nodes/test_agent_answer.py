"""Tests of the default values of a node's answer, which mean unknown."""

from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer


def test_the_answer_of_a_new_node_has_no_status_and_no_problem():
    node = AgentAnswer("node-1")
    assert (node.agents, node.status, node.problem, node.behind) == ((), None, None, ())
