"""Whether endpoints see client addresses, and which networks of the node the plane receives."""

import asyncio
import contextlib
import logging

import pytest

from tests.netns import Net
from userspace_proxy.agent.watchers import client_address
from userspace_proxy.agent.watchers.client_address import ClientAddresses, impossible_reason
from userspace_proxy.errors import SteeringError
from userspace_proxy.facts import StatusFacts
from userspace_proxy.kernel.routes import read_bridge_filter
from userspace_proxy.model import DataPath, IPFamily, PortKey, Protocol, ServicePortName
from userspace_proxy.model.node_network import BridgeFilter, NodeLink
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import PlanChanges, PortPlan
from userspace_proxy.policy import PathDecision
from userspace_proxy.steering import ReplyRouting

from ..watched import until

POD_NETWORK, POD_NETWORK_6 = "10.9.0.0/24", "fd00:9::/64"
ADD_CILIUM = "ip link add cilium_host type veth peer name cilium_net"


class NetworksOfPlane:
    """Stores the networks that a plane receives."""

    def __init__(self):
        self.given = []

    def preserve(self, networks):
        self.given.append(networks)

    def has(self, network):
        return bool(self.given and self.given[-1]) and network in self.given[-1]


@pytest.fixture
def node():
    node = Net("node")
    node.run("""
        ip link add veth0 type veth peer name veth1
        ip link set veth0 up
        ip link set veth1 up
        ip address add 10.9.0.1/24 dev veth0
        ip -6 address add fd00:9::1/64 dev veth0 nodad""")
    yield node
    node.close()


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(client_address, "REPAIR_S", 0.01)


def run(node, scenario):
    """Run a scenario with new ClientAddresses, their repairs, and a plane that records networks."""

    async def main():
        addresses, plane = ClientAddresses("", ()), NetworksOfPlane()
        await addresses.begin()
        addresses.follow(plane)
        repairing = asyncio.create_task(addresses.repair())
        try:
            await asyncio.wait_for(scenario(addresses, plane), 60)
        finally:
            repairing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await repairing
            await addresses.close()

    with node:
        asyncio.run(main())


def reply_rules(node):
    return node.run("ip rule; ip -6 rule").count("11800")


def test_reply_routing_on_the_kernel_path_starts_with_the_first_proxied_service_port(node):
    def changes(path):
        name = ServicePortName("shop", "web", "")
        key = PortKey(name, IPFamily.IPV4)
        port = PortPlan(key, Protocol.TCP, (), (), Serving(), path=PathDecision(path))
        return PlanChanges((port,), (), ())

    async def main(path):
        addresses, plane = ClientAddresses("", ()), NetworksOfPlane()
        addresses.follow(plane)
        await addresses.prepare(changes(DataPath.KERNEL))
        assert addresses.reason == ""
        assert reply_rules(node) == 0
        assert plane.given == []
        await addresses.prepare(changes(path))
        assert addresses.reason == ""
        assert reply_rules(node) == 2
        assert plane.has(POD_NETWORK)
        assert plane.has(POD_NETWORK_6)
        await addresses.clean_up()
        await addresses.close()
        assert reply_rules(node) == 0

    with node:
        for path in (DataPath.USERSPACE, DataPath.AUTO):
            asyncio.run(main(path))


def test_a_new_route_reaches_the_plane(node):
    async def scenario(_addresses, plane):
        await asyncio.to_thread(node.run, "ip route add 10.8.0.0/24 dev veth0")
        await until(lambda: plane.has("10.8.0.0/24"))

    run(node, scenario)


def test_changed_settings_of_bridges_are_followed(node, tmp_path, monkeypatch):
    monkeypatch.setattr(read_bridge_filter, "__defaults__", (tmp_path,))

    async def scenario(addresses, _plane):
        # Three changes: the first may be noticed only because of the routes that the start adds.
        for value in ("1", "0", "1"):
            for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
                (tmp_path / name).write_text(value)
            follows = BridgeFilter(True, value == "1", value == "1")
            await until(lambda follows=follows: addresses._routes.now.bridge_filter == follows)

    run(node, scenario)


def test_removed_reply_rules_are_restored_and_logged(node, caplog):
    async def scenario(addresses, _plane):
        await asyncio.to_thread(node.run, "ip rule del lookup 11800")
        await until(lambda: addresses.repairs)
        assert addresses.problem == ""

    run(node, scenario)
    assert reply_rules(node) == 2
    assert "repaired reply routing that another program had changed" in caplog.messages


def test_no_client_addresses_are_preserved_while_reply_routing_is_refused(node, monkeypatch):
    def refuse(*_):
        raise SteeringError("refused")

    refused = pytest.MonkeyPatch()
    refused.setattr(ReplyRouting, "repair", refuse)
    refused.setattr(ReplyRouting, "clean_up", refuse)
    monkeypatch.setattr(client_address, "RETRY_S", 0.01)

    async def scenario(addresses, plane):
        await addresses.clean_up()
        assert (addresses.reason, plane.given) == ("refused", [])
        for _ in range(2):
            refused.undo()
            await until(lambda: plane.has(POD_NETWORK))
            assert (addresses.reason, addresses.problem) == ("", "")
            refused.setattr(ReplyRouting, "repair", refuse)
            await until(lambda: addresses.problem and plane.given[-1] is None)
            addresses.show(facts := StatusFacts())
            assert not facts.client_address.is_on

    run(node, scenario)
    refused.undo()


def test_with_cilium_existing_reply_rules_are_removed_and_none_are_created(node, caplog):
    async def leave(addresses, _plane):
        assert addresses.reason == ""

    async def scenario(addresses, plane):
        assert addresses.reason.startswith("Cilium delivers")
        assert not any(plane.given)

    for _ in range(2):
        run(node, leave)
        assert reply_rules(node) == 2
    node.run(ADD_CILIUM)
    run(node, scenario)
    assert reply_rules(node) == 0
    (record,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert record.cause.startswith("Cilium delivers")


def test_client_address_preservation_ends_when_cilium_appears_and_resumes_afterwards(node, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.agent")

    async def scenario(addresses, plane):
        await asyncio.to_thread(node.run, ADD_CILIUM)
        await until(lambda: plane.given[-1] is None)
        assert addresses.reason
        await asyncio.to_thread(node.run, "ip link del cilium_host")
        await until(lambda: plane.has(POD_NETWORK))

    run(node, scenario)
    assert caplog.messages[-2:] == [
        "endpoints see this node's address, not the client's: "
        "Cilium delivers replies of pods past this node's network stack",
        "endpoints see client addresses again",
    ]


def test_only_ipv4_networks_reach_the_plane_if_ipv6_replies_are_not_routed(node, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.agent")
    node.run("echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6")

    async def scenario(addresses, plane):
        assert addresses.reason == ""
        assert plane.has(POD_NETWORK)
        assert not any(":" in network for network in plane.given[-1])

    run(node, scenario)
    text = "endpoints do not see the addresses of IPv6 clients: "
    assert any(message.startswith(text) for message in caplog.messages)


@pytest.mark.parametrize(
    ("name", "is_possible"), [("eth0", True), ("cilium_net", True), ("cilium_host", False)]
)
def test_only_the_interface_cilium_host_prevents_client_address_preservation(name, is_possible):
    assert (impossible_reason([NodeLink(1, "lo", ""), NodeLink(2, name, "")]) == "") is is_possible
