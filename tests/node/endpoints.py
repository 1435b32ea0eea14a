"""Endpoints that report their client's address, with Services of both families."""

import contextlib
import itertools
import json
import socket

from tests.cluster.waiting import wait_for
from tests.node.clients import DEADLINE_S, Sockets
from tests.node.testbed import Testbed
from tests.promises.specs import At, Port, Spec

PORT, TARGET, NODE_PORT = 80, 8080, 30000
PROTOCOLS = ("TCP", "UDP")
VERSIONS = (4, 6)
CLUSTER_IPS = {4: "10.96.0.{}", 6: "fd00:96::{}"}


class Endpoint:
    """A pod with servers in this process, which sees the addresses of their clients."""

    def __init__(self, host):
        self.host = host
        self.sockets = Sockets(host)
        self.opened = contextlib.ExitStack()
        self.servers = {
            (protocol, version): self._serve(protocol, version)
            for protocol in PROTOCOLS
            for version in VERSIONS
        }

    def ip(self, version):
        return str(self.host.ip if version == 4 else self.host.ip6)

    def saw(self, protocol, version, client, address):
        """Dial from a client; return the client's address and port as this endpoint sees them."""
        server = self.servers[protocol, version]
        if protocol == "TCP":
            with client.tcp(address[0]) as dialling:
                dialling.connect(address)
                dialling.sendall(b"question")
                accepted, peer = accept_with_data(server)
                with accepted:
                    accepted.sendall(b"answer")
                    assert dialling.recv(100) == b"answer"
            return peer[:2]
        asking = client.udp(address)
        asking.send(b"question")
        _, peer = server.recvfrom(100)
        server.sendto(b"answer", peer)
        assert asking.recv(100) == b"answer"
        return peer[:2]

    def close(self):
        self.opened.close()
        self.sockets.close()

    def _serve(self, protocol, version):
        ip = self.ip(version)
        server = self.sockets.tcp(ip) if protocol == "TCP" else self.sockets.udp(ip)
        self.opened.enter_context(server)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ip, TARGET))
        if protocol == "TCP":
            server.listen()
        return server


def accept_with_data(server):
    """Return the first connection that sends data, which the proxy's probes don't, and its peer."""
    while True:
        accepted, peer = server.accept()
        accepted.settimeout(DEADLINE_S)
        if accepted.recv(100):
            return accepted, peer
        accepted.close()


def carries_both_ways(one, other):
    """Return whether data from each end of a connection arrives at the other end."""
    one.sendall(b"question")
    arrived = other.recv(100)
    other.sendall(b"answer")
    return (arrived, one.recv(100)) == (b"question", b"answer")


def objects(name, number, *endpoints, nodePort=0, **spec):  # noqa: N803 - as in a Service
    """Return a Service of both protocols and families, and its slices."""
    ends = [At(one.ip(version), node) for one, node in endpoints for version in VERSIONS]
    ports = [Port(PORT, protocol, TARGET, protocol.lower(), nodePort) for protocol in PROTOCOLS]
    ips = [CLUSTER_IPS[version].format(number) for version in VERSIONS]
    return Spec(name, ips, ports, more=spec).at(*ends).objects()


def addresses(node):
    listed = json.loads(node.run(["ip", "-json", "address"]).stdout)
    return {info["local"] for link in listed for info in link["addr_info"]}


SEEN = {
    ("pod", "routed"): "client",
    ("pod", "bridged"): "client",
    ("pod", "remote"): "client",
    ("bare-pod", "routed"): "client",
    ("bare-pod", "remote"): "client",
    ("bridge-pod", "routed"): "client",
    ("bridge-pod", "remote"): "client",
    # In the first case, the Service has externalTrafficPolicy Local, and in the second, Cluster.
    ("laptop", "routed"): "client",
    ("laptop", "bridged"): "client",
    # The endpoint's answer would bypass this node on its way to the laptop.
    ("laptop", "remote"): "node",
    ("bridge-pod", "bridged"): "client",
    ("pod", "itself"): "node",
    ("bridge-pod", "itself-bridged"): "node",
    ("node-1", "routed"): "node",
    ("node-1", "bridged"): "node",
    ("node-1", "remote"): "node",
}
"""The source address that an endpoint of :class:`EndpointWorld` sees, by client and endpoint."""


class EndpointWorld:
    """A testbed with an endpoint of each kind, each with its own Service."""

    def __init__(self, testbed):
        self.testbed = testbed
        second = testbed.sandbox.add_node()
        self.endpoints = {
            "routed": Endpoint(testbed.sandbox.add_pod("routed")),
            "bridged": Endpoint(testbed.sandbox.add_pod("bridged", "bridge")),
            "remote": Endpoint(second.add_pod("remote")),
        }
        self.numbers = {name: number for number, name in enumerate(self.endpoints, 10)}
        self.numbers["itself"] = 20
        itself = Endpoint(testbed["pod"].host)
        self.endpoints["itself"] = itself
        self.numbers["itself-bridged"] = 21
        self.endpoints["itself-bridged"] = Endpoint(testbed["bridge-pod"].host)
        documents = [
            document
            for name, endpoint in self.endpoints.items()
            for document in objects(
                name,
                self.numbers[name],
                (endpoint, "node-2" if name == "remote" else "node-1"),
                type="NodePort",
                nodePort=NODE_PORT + self.numbers[name],
                externalTrafficPolicy="Local" if name == "routed" else "Cluster",
            )
        ]
        testbed.agent.manifests.write_objects(documents)
        testbed.agent.start_until_ready()

    def address(self, client, name, version):
        if client == "laptop" and version == 6:
            # The laptop has no route to the range of the ClusterIPs.
            return str(self.testbed.node.ip6), NODE_PORT + self.numbers[name]
        return CLUSTER_IPS[version].format(self.numbers[name]), PORT

    def saw(self, client, endpoint, protocol, version):
        """Return the source address that an endpoint sees: ``client``, ``node``, or another."""
        host, node = self.testbed[client].host, self.testbed.node
        address = self.address(client, endpoint, version)
        ip, _ = self.endpoints[endpoint].saw(protocol, version, self.testbed[client], address)
        # Connections to a pod may have the node's gateway address as their source.
        if ip in addresses(node):
            return "node"
        return "client" if ip == str(host.ip if version == 4 else host.ip6) else ip

    def close(self):
        for endpoint in self.endpoints.values():
            endpoint.close()


MAC = "06:75:70:72:6f:78"


class Bridge:
    """A testbed with a client and an endpoint on its node's bridge."""

    def __init__(self, folder, *clients, steering="nftables"):
        flags = ("--workers=1", "--connection-log=1")
        self.testbed = Testbed(folder, steering, *flags, clients=("bridge-pod", *clients))
        self.endpoint = Endpoint(self.testbed.sandbox.add_pod("bridged", "bridge"))

    def start(self, *services):
        services = services or [objects("bridged", 10, (self.endpoint, "node-1"))]
        self.testbed.agent.manifests.write_objects(itertools.chain(*services))
        self.testbed.agent.start_until_ready()

    def seen(self, version=4, protocol="TCP", client="bridge-pod"):
        """Return the source address that the endpoint sees: ``client`` or ``node``."""
        address = (CLUSTER_IPS[version].format(10), PORT)
        ip, _ = self.endpoint.saw(protocol, version, self.testbed[client], address)
        host = self.testbed[client].host
        if ip == str(host.ip if version == 4 else host.ip6):
            return "client"
        assert ip in addresses(self.testbed.node)
        return "node"

    def wait_for_obstacles(self, *expected):
        """Wait until the status reports exactly these bridges and families."""

        def reported():
            shown = self.testbed.agent.status()["client_address"]["bridges"]
            return sorted((one["name"], one["family"]) for one in shown) == sorted(expected)

        wait_for(f"the obstacles {expected}", reported, hint=self.testbed.agent.log)

    def close(self):
        self.endpoint.close()
        self.testbed.close()


def entries(testbed):
    """Return the bridges that own the proxy's MAC address, or the ports that learned it."""
    listed = testbed.shell("bridge fdb show").splitlines()
    return {line.split()[2] for line in listed if line.startswith(MAC)}


def open_bridge(tmp_path):
    """Yield a bridge; test modules use this as a fixture."""
    with contextlib.closing(Bridge(tmp_path)) as bridge:
        yield bridge
