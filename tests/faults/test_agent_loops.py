"""Node ports that lead to node ports, on two nodes with an agent each."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.clients import Sockets
from tests.node.manifests import Service, with_endpoints
from tests.node.processes import child_pids
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

NODE_PORT = 30080
LIMIT = 600
LOOP = Service(
    "loop",
    "10.96.0.10",
    target=NODE_PORT,
    more={
        "type": "NodePort",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": NODE_PORT}],
    },
)
WEB = Service("web", "10.96.0.20")


class LimitedAgent(Agent):
    """An agent with few descriptors."""

    limit = LIMIT

    @property
    def command(self) -> list[str]:
        """Part of Agent."""
        return ["prlimit", f"--nofile={self.limit}:{self.limit}", "--", *super().command]


@pytest.fixture
def testbed(tmp_path):
    """Two nodes whose agents know neither each other's node nor that it has the node port."""
    folder = tmp_path / "unused"
    folder.mkdir()
    with Testbed(folder, "nftables") as testbed:
        yield testbed


@pytest.fixture
def agents(testbed, tmp_path):
    """The agents of both nodes, not started."""
    with contextlib.ExitStack() as stack:
        agents = []
        for node in (testbed.node, testbed.sandbox.add_node()):
            folder = tmp_path / node.name
            folder.mkdir()
            sockets = Sockets(node)
            stack.callback(sockets.close)
            flags = "--workers=1", f"--hostname-override={node.name}"
            agents.append(LimitedAgent(node, sockets, folder, "nftables", *flags))
        yield agents


def serve(testbed, agents, nodes=""):
    """Have both serve a Service whose endpoints are its own node port on both nodes."""
    loop = with_endpoints(LOOP, [str(agent.node.ip) for agent in agents])
    web = with_endpoints(WEB, testbed.add_pods("web", tcp=8080))
    for agent in agents:
        agent.manifests.write(loop, web)
        agent.manifests.write_text(nodes, name="nodes.yaml")
        agent.start_until_ready()


def descriptors(agent):
    (worker,) = child_pids(agent.pid)
    return len(list(Path(f"/proc/{worker}/fd").iterdir()))


def node_object(node):
    return (
        f"apiVersion: v1\nkind: Node\nmetadata: {{name: {node.name}}}\n"
        f"status: {{addresses: [{{type: InternalIP, address: {node.ip}}}]}}\n"
    )


def test_a_loop_that_no_agent_can_see_leaves_room_for_others_and_ends(testbed, agents):
    serve(testbed, agents)
    before = [descriptors(agent) for agent in agents]
    client = testbed["laptop"].dial((str(agents[0].node.ip), NODE_PORT))

    def is_full():
        return any(descriptors(agent) > LIMIT // 2 for agent in agents)

    wait_for("the loop to take what it gets", is_full, hint=agents[0].log)
    for _ in range(5):
        assert testbed["pod"].get(WEB.address) == "web"
        assert all(descriptors(agent) <= LIMIT for agent in agents)
    client.close()

    def are_back():
        now = [descriptors(agent) for agent in agents]
        return all(n <= b + 10 for n, b in zip(now, before, strict=True))

    wait_for("descriptors to be given back", are_back, hint=agents[0].log)
    assert testbed["pod"].get(WEB.address) == "web"


def test_a_loop_that_the_node_objects_show_is_refused(testbed, agents):
    nodes = "---\n".join(node_object(agent.node) for agent in agents)
    serve(testbed, agents, nodes)
    before = [descriptors(agent) for agent in agents]
    for agent in agents:
        assert testbed["laptop"].tcp_refusal((str(agent.node.ip), NODE_PORT)) == "refused"
    assert [descriptors(agent) for agent in agents] == before
