"""Client addresses while agents, Cilium, IPv6 and routes are added and removed."""

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import CLEANUP
from tests.node.endpoints import (
    CLUSTER_IPS,
    PORT,
    PROTOCOLS,
    Endpoint,
    addresses,
    objects,
)
from tests.node.testbed import Testbed, steerings

pytestmark = [pytest.mark.long, pytest.mark.netns]

NODE_PORT = 30000
ANNOTATION = "userspace-proxy.io/preserve-client-address"


@pytest.mark.parametrize("steering", steerings("nftables", "local"))
def test_a_killed_agents_kernel_state_is_reused_and_removed_by_stop_or_cleanup(steering, tmp_path):
    with Testbed(tmp_path, steering, "--workers=1", clients=("pod",)) as testbed:
        endpoint = Endpoint(testbed.sandbox.add_pod("routed"))
        testbed.pod("routed").serve(None, tcp=81)
        before = testbed.kernel()
        documents = objects("routed", 10, (endpoint, "node-1"))
        testbed.agent.manifests.write_objects(documents)
        address = (CLUSTER_IPS[4].format(10), PORT)
        ip = str(testbed["pod"].host.ip)

        def seen():
            return endpoint.saw("TCP", 4, testbed["pod"], address)[0]

        testbed.agent.start_until_ready()
        assert seen() == ip
        running = testbed.kernel()
        testbed.agent.kill()
        assert "lookup 11800" in testbed.kernel()
        testbed.agent.start_until_ready()
        assert seen() == ip
        assert testbed.kernel().count("11800") == running.count("11800")
        assert testbed.agent.stop() == 0
        assert "11800" not in testbed.kernel()
        assert "userspace-proxy" not in testbed.rules()
        # Kill the agent, and clean up.
        testbed.agent.start_until_ready()
        testbed.agent.kill()
        assert testbed.agent.run(command=CLEANUP).returncode == 0
        assert testbed.kernel() == before
        # Kill the agent, and start it again without address preservation.
        testbed.agent.start_until_ready()
        testbed.agent.kill()
        testbed.agent.flags = (*testbed.agent.flags, "--preserve-client-address=never")
        testbed.agent.start_until_ready()
        assert seen() in addresses(testbed.node)
        assert "11800" not in testbed.kernel()
        assert testbed.agent.status()["client_address"]["is_on"] is False
        assert testbed.agent.stop() == 0
        endpoint.close()


def test_installing_cilium_ends_address_preservation_without_leftovers(tmp_path):
    with Testbed(tmp_path, "nftables", "--workers=1", clients=("pod",)) as testbed:
        endpoint = Endpoint(testbed.sandbox.add_pod("routed"))
        before = testbed.kernel()
        documents = objects("routed", 10, (endpoint, "node-1"))
        testbed.agent.manifests.write_objects(documents)
        testbed.agent.start_until_ready()
        address = (CLUSTER_IPS[4].format(10), PORT)

        def seen():
            return endpoint.saw("TCP", 4, testbed["pod"], address)[0]

        def is_on():
            return testbed.agent.status()["client_address"]["is_on"]

        ip = str(testbed["pod"].host.ip)
        assert seen() == ip
        testbed.shell("ip link add cilium_host type veth peer name cilium_net")
        wait_for("an end of it", lambda: not is_on())
        assert seen() in addresses(testbed.node)
        testbed.shell("ip link del cilium_host")
        wait_for("its return", is_on)
        assert seen() == ip
        # The next agent removes the killed agent's routes, which it doesn't need.
        testbed.agent.kill()
        testbed.shell("ip link add cilium_host type veth peer name cilium_net")
        testbed.agent.start_until_ready()
        assert "11800" not in testbed.kernel()
        testbed.agent.kill()
        testbed.shell("ip link del cilium_host")
        # Preservation is on, ends at run time, and then the agent is stopped.
        testbed.agent.start_until_ready()
        testbed.shell("ip link add cilium_host type veth peer name cilium_net")
        wait_for("an end of it", lambda: not is_on())
        assert testbed.agent.stop() == 0
        testbed.shell("ip link del cilium_host")
        assert testbed.kernel() == before
        endpoint.close()


def serve_past_the_node(testbed, **annotations):
    """Serve an endpoint that has its own link to the laptop, as Multus adds it.

    Returns:
        The endpoint, and the address to dial.
    """
    endpoint, laptop = Endpoint(testbed.sandbox.add_pod("routed")), testbed["laptop"].host
    leg = f"ip link add lan type veth peer name leg netns {laptop.pid}"
    endpoint.host.run(["sh", "-ec", f"{leg}; ip link set lan up"])
    endpoint.host.run(["ip", "route", "add", f"{laptop.ip}/32", "dev", "lan"])
    laptop.run(["ip", "link", "set", "leg", "up"])
    spec = {"type": "NodePort", "nodePort": NODE_PORT}
    documents = list(objects("routed", 10, (endpoint, "node-1"), **spec))
    documents[0]["metadata"]["annotations"] = annotations
    testbed.agent.manifests.write_objects(documents)
    testbed.agent.start_until_ready()
    return endpoint, (str(testbed.node.ip), NODE_PORT)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pod_with_a_link_in_its_clients_network_is_served_with_the_annotation(protocol, tmp_path):
    """The pod's answers bypass the node."""
    flags = ("--workers=1", "--connection-log=1")
    with Testbed(tmp_path, "nftables", *flags, clients=("pod", "laptop")) as testbed:
        endpoint, address = serve_past_the_node(testbed, **{ANNOTATION: "never"})
        seen = endpoint.saw(protocol, 4, testbed["laptop"], address)[0]
        assert seen in addresses(testbed.node)
        endpoint.close()
