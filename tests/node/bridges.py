"""A client and an endpoint on the bridge of a node with an agent."""

import contextlib
import itertools

from tests.cluster.waiting import wait_for
from tests.node.endpoints import CLUSTER_IPS, PORT, Endpoint, addresses, objects
from tests.node.testbed import Testbed

MAC = "06:75:70:72:6f:78"


class Bridge:
    """A testbed with a client and an endpoint on the bridge of its node."""

    def __init__(self, folder, *clients, steering="nftables"):
        flags = ("--workers=1", "--connection-log=1")
        self.testbed = Testbed(folder, steering, *flags, clients=("bridge-pod", *clients))
        self.endpoint = Endpoint(self.testbed.sandbox.add_pod("bridged", "bridge"))

    def start(self, *services):
        services = services or [objects("bridged", 10, (self.endpoint, "node-1"))]
        self.testbed.agent.manifests.write_objects(itertools.chain(*services))
        self.testbed.agent.start_until_ready()

    def seen(self, version=4, protocol="TCP", client="bridge-pod"):
        """Return whose address the endpoint sees: ``client`` or ``node``."""
        address = (CLUSTER_IPS[version].format(10), PORT)
        ip, _ = self.endpoint.saw(protocol, version, self.testbed[client], address)
        host = self.testbed[client].host
        if ip == str(host.ip if version == 4 else host.ip6):
            return "client"
        assert ip in addresses(self.testbed.node)
        return "node"

    def wait_for_obstacles(self, *expected):
        """Wait until the page reports these bridges and families, and no others."""

        def reported():
            shown = self.testbed.agent.status()["client_address"]["bridges"]
            return sorted((one["name"], one["family"]) for one in shown) == sorted(expected)

        wait_for(f"the obstacles {expected}", reported, hint=self.testbed.agent.log)

    def close(self):
        self.endpoint.close()
        self.testbed.close()


def entries(testbed):
    """Return the bridges that own the proxy's MAC, or the ports on which they learned it."""
    listed = testbed.shell("bridge fdb show").splitlines()
    return {line.split()[2] for line in listed if line.startswith(MAC)}


def open_bridge(tmp_path):
    """Yield a bridge; test modules make a fixture of this."""
    with contextlib.closing(Bridge(tmp_path)) as bridge:
        yield bridge
