"""A node of a sandbox, and the pods on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from userspace_proxy.errors import SandboxError

from . import links
from .address_plan import Address, PodRanges, nth
from .holder import Holder
from .namespace import Namespace

# In each half of the range, the first pod's address follows the gateway's.
FIRST_POD = 2

MakeHolder = Callable[[], Holder]


class Host(Namespace):
    """A namespace with addresses: ``ip``, and ``ip6``.

    ``ip6`` is None unless the kernel and the sandbox's address plan support IPv6.
    """

    def __init__(self, name: str, holder: Holder, addresses: Sequence[Address]) -> None:
        super().__init__(name, holder)
        self.addresses = tuple(addresses)
        self.ip = next(a for a in addresses if isinstance(a, IPv4Address))
        self.ip6 = next((a for a in addresses if isinstance(a, IPv6Address)), None)

    def far_end(self) -> links.FarEnd:
        """Return the far end of a link to this host."""
        return links.FarEnd(self.pid, self.addresses)


class Pod(Host):
    """One pod: a namespace on a node, with ``eth0`` as its only link.

    Args:
        host_interface: The near end of its link, in the node's namespace.
        mode: The kind of link; see ``SandboxNode.add_pod``.
    """

    def __init__(
        self,
        name: str,
        holder: Holder,
        addresses: Sequence[Address],
        *,
        host_interface: str,
        mode: links.Mode,
    ) -> None:
        super().__init__(name, holder, addresses)
        self.host_interface = host_interface
        self.mode = mode
        self.drops_traffic = False
        """Whether the pod drops all traffic."""
        self._routes: tuple[links.FarRoute, ...] = ()

    def connect(self, wiring: links.Wiring) -> None:
        """Configure the far end of the pod's link, whose near end exists."""
        self._routes = wiring.routes
        self.configure(wiring.far_lines())

    def drop_traffic(self) -> None:
        """Make the pod silent: its clients get no answer, not even a refusal. Idempotent.

        Its routes become blackholes, so no packet leaves the pod except answers to ARP and
        neighbour discovery, which need no route. Packets to the pod still arrive.
        """
        self.configure(route.blackhole() for route in reversed(self._routes))
        self.drops_traffic = True

    def pass_traffic(self) -> None:
        """Undo ``drop_traffic``; idempotent."""
        self.configure(route.line() for route in self._routes)
        self.drops_traffic = False


class SandboxNode(Host):
    """One node, which runs the proxy and forwards between its pods and the LAN.

    Args:
        ranges: The node's part of the pod ranges.
        make_holder: Creates the holder of a new pod.
    """

    def __init__(
        self,
        name: str,
        holder: Holder,
        addresses: Sequence[Address],
        *,
        ranges: PodRanges,
        make_holder: MakeHolder,
    ) -> None:
        super().__init__(name, holder, addresses)
        self.ranges = ranges
        self.pods: dict[str, Pod] = {}
        self._make_holder = make_holder
        self._used = {"routed": FIRST_POD, "bridge": FIRST_POD}
        self._links = 0

    def add_pod(self, name: str, mode: links.Mode = "routed") -> Pod:
        """Start a pod.

        Args:
            name: The name, which is also the text of its backends' answers. The name of a closed
                pod may be reused; the new pod has another address.
            mode: ``routed``: a veth with the gateway's address at the node's end.
                ``bridge``: a port of ``cni0``, with hairpin. ``unnumbered``: a veth whose end
                at the node has no IPv4 address and answers ARP for the gateway 169.254.1.1,
                as with Calico.

        Raises:
            SandboxError: The name is taken, the pod range is exhausted, or the kernel refuses.
        """
        if name in self.pods and not self.pods[name].closed:
            raise SandboxError(f"cannot add pod {name}: {self.name} has a pod of that name")
        addresses = self._next_addresses(mode)
        pod = Pod(
            name,
            self._make_holder(),
            addresses,
            host_interface=f"veth{self._links}",
            mode=mode,
        )
        self._links += 1
        self.pods[name] = pod
        wiring = self._wire(pod)
        self.configure(wiring.near, wiring.near_sysctls)
        pod.connect(wiring)
        return pod

    def _next_addresses(self, mode: links.Mode) -> tuple[Address, ...]:
        half = "bridge" if mode == "bridge" else "routed"
        index = self._used[half]
        addresses = nth(self.ranges.bridged if half == "bridge" else self.ranges.routed, index)
        if half == "bridge" and index == FIRST_POD:
            self.configure(links.bridge(self.ranges.bridged))
        self._used[half] = index + 1
        return addresses

    def _wire(self, pod: Pod) -> links.Wiring:
        near, far = pod.host_interface, pod.far_end()
        if pod.mode == "bridge":
            return links.bridged_pod(near, far, self.ranges.bridged)
        if pod.mode == "unnumbered":
            return links.unnumbered_pod(near, far, self.addresses)
        return links.routed_pod(near, far, nth(self.ranges.routed, 1))
