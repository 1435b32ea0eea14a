"""The sandbox: a LAN with nodes and outside clients."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from userspace_proxy.errors import SandboxError
from userspace_proxy.kernel.privileges import effective_capabilities

from . import links
from .address_plan import (
    POD_CIDR,
    ROUTER,
    SERVICE_CIDR,
    Address,
    nth,
    plan_addresses,
    pod_ranges,
)
from .holder import Holder
from .namespace import Namespace, close_all
from .node import Host, Pod, SandboxNode
from .privileges import needs_user_namespace, require_tools, tool_path

# Namespaces inherit some IPv4 settings from the machine, so all settings that affect a proxy are
# set. A rate limit that suppresses an ICMP error would turn a refusal into a timeout.
IPV4_SYSCTLS = (
    "net/ipv4/conf/all/rp_filter=0",
    "net/ipv4/conf/default/rp_filter=0",
    "net/ipv4/conf/all/send_redirects=0",
    "net/ipv4/conf/default/send_redirects=0",
    "net/ipv4/icmp_ratelimit=0",
)
# Without duplicate address detection, addresses are usable at once.
IPV6_SYSCTLS = ("net/ipv6/conf/default/accept_dad=0", "net/ipv6/icmp/ratelimit=0")
FORWARD_IPV4 = {False: "net/ipv4/ip_forward=0", True: "net/ipv4/ip_forward=1"}
FORWARD_IPV6 = {
    False: "net/ipv6/conf/all/forwarding=0",
    True: "net/ipv6/conf/all/forwarding=1",
}


class Sandbox:
    """A small cluster's network in namespaces; the machine's own network isn't changed.

    ``open`` and a ``with`` block start the LAN and the first node; ``close`` ends all namespaces,
    as does the death of this process.

    Args:
        rootless: Whether to use a user namespace; None to use one only if this process may not
            create network namespaces.
        pod_cidr: As for :func:`.plan_addresses`.
        service_cidr: Likewise; outside clients route it through the node.

    Raises:
        SandboxError: A range is invalid.
    """

    def __init__(
        self,
        *,
        rootless: bool | None = None,
        pod_cidr: str = POD_CIDR,
        service_cidr: str = SERVICE_CIDR,
    ) -> None:
        self.rootless = rootless
        self.nodes: list[SandboxNode] = []
        self.outside: dict[str, Host] = {}
        self._plan = plan_addresses(pod_cidr, service_cidr)
        self._lan: Namespace | None = None
        self._first: Holder | None = None
        self._ipv6 = Path("/proc/sys/net/ipv6/conf/all").exists()
        if not self._ipv6:
            self._plan = self._plan.without_ipv6()

    @property
    def node(self) -> SandboxNode:
        """The first node.

        Raises:
            SandboxError: The sandbox isn't open.
        """
        if not self.nodes:
            raise SandboxError("cannot use the sandbox: it is not open")
        return self.nodes[0]

    @property
    def lan(self) -> Namespace:
        """The segment between nodes and outside clients, with its router.

        Raises:
            SandboxError: The sandbox isn't open.
        """
        if self._lan is None:
            raise SandboxError("cannot use the sandbox: it is not open")
        return self._lan

    @property
    def pods(self) -> dict[str, Pod]:
        """The pods of all nodes by name."""
        return {name: pod for node in self.nodes for name, pod in node.pods.items()}

    def open(self) -> Self:
        """Start the LAN and the first node.

        Raises:
            SandboxError: A tool is missing or the kernel refuses; the hint contains the remedy.
        """
        require_tools(tool_path())
        if self.rootless is None:
            self.rootless = needs_user_namespace(effective_capabilities())
        try:
            self._lan = Namespace("lan", self._hold(forward=True))
            self._lan.configure(
                links.lan(self._plan, self._router()), links.lan_sysctls(self._plan)
            )
            self.add_node()
        except BaseException:
            self.close()
            raise
        return self

    def add_node(self, name: str | None = None) -> SandboxNode:
        """Start another node, whose pods and other nodes' pods reach each other.

        Args:
            name: None for ``node-2`` and so on.

        Raises:
            SandboxError: A range is exhausted, or the kernel refuses.
        """
        index = len(self.nodes)
        addresses = nth(self._plan.nodes, index + 1)
        ranges = pod_ranges(self._plan.pods, index)
        node = SandboxNode(
            name or f"node-{index + 1}",
            self._hold(forward=True),
            addresses,
            ranges=ranges,
            make_holder=self._hold,
        )
        self.nodes.append(node)
        wiring = links.node(
            f"node{index}", node.far_end(), self._plan, pods=ranges.whole, router=self._router()
        )
        # The router needs routes to pods to send them ICMP errors.
        self.lan.configure((*wiring.near, *links.to_node(ranges.whole, addresses)))
        node.configure(wiring.far_lines())
        for other in self.nodes[:-1]:
            node.configure(links.to_node(other.ranges.whole, other.addresses))
            other.configure(links.to_node(ranges.whole, addresses))
        return node

    def add_pod(self, name: str, mode: links.Mode = "routed") -> Pod:
        """Start a pod on the first node; see :meth:`.SandboxNode.add_pod`."""
        return self.node.add_pod(name, mode)

    def add_outside(self, name: str, via: SandboxNode | None = None) -> Host:
        """Start a client beyond the nodes, on another subnet.

        The client reaches nodes directly, Services and load balancers' addresses through a node,
        and no pods.

        Args:
            via: The node for Services; None for the first.

        Raises:
            SandboxError: The name is taken, the range is exhausted, or the kernel refuses.
        """
        if name in self.outside:
            raise SandboxError(f"cannot add client {name}: that name is in use")
        index = len(self.outside)
        addresses = nth(self._plan.outside, index + 1)
        client = Host(name, self._hold(), addresses)
        self.outside[name] = client
        wiring = links.outside(
            f"out{index}",
            client.far_end(),
            self._plan,
            via=(via or self.node).addresses,
        )
        self.lan.configure(wiring.near)
        client.configure(wiring.far_lines())
        return client

    def close(self) -> None:
        """Close all namespaces; idempotent. The sandbox can be opened again."""
        pods = [pod for node in self.nodes for pod in node.pods.values()]
        lan = [self._lan] if self._lan else []
        close_all([*self.outside.values(), *pods, *self.nodes, *lan])
        self.nodes.clear()
        self.outside.clear()
        self._lan = self._first = None

    def _hold(self, *, forward: bool = False) -> Holder:
        sysctls = [*IPV4_SYSCTLS, FORWARD_IPV4[forward]]
        if self._ipv6:
            sysctls += [*IPV6_SYSCTLS, FORWARD_IPV6[forward]]
        holder = Holder(rootless=bool(self.rootless), user=self._first, sysctls=sysctls)
        self._first = self._first or holder
        return holder

    def _router(self) -> tuple[Address, ...]:
        return nth(self._plan.nodes, ROUTER)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()
