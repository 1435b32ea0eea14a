"""A node of a sandbox, and the pods on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from ..errors import SandboxError
from . import links
from .addresses import Address, PodRanges, nth
from .holder import Holder
from .namespace import Namespace

# Pods of each half of the range start after the gateway.
FIRST_POD = 2

MakeHolder = Callable[[], Holder]


class Host(Namespace):
    """A namespace with addresses of its own.

    Args:
        name: See ``Namespace``.
        holder: See ``Namespace``.
        addresses: ``ip``, and ``ip6`` where kernel and ranges have IPv6.
    """

    def __init__(self, name: str, holder: Holder, addresses: Sequence[Address]) -> None:
        super().__init__(name, holder)
        self.addresses = tuple(addresses)
        self.ip = next(a for a in addresses if isinstance(a, IPv4Address))
        self.ip6 = next((a for a in addresses if isinstance(a, IPv6Address)), None)

    def far_end(self) -> links.FarEnd:
        """Return what a link to this host must know."""
        return links.FarEnd(self.pid, self.addresses)


class Pod(Host):
    """One pod: a namespace on a node, with ``eth0`` as its only way out.

    Args:
        name: See ``Namespace``.
        holder: See ``Namespace``.
        addresses: See ``Host``.
        host_interface: The near end of its link, in the node's namespace.
        mode: How it is linked; see ``SandboxNode.add_pod``.
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
        self._routes: tuple[links.Route, ...] = ()

    def connect(self, wiring: links.Wiring) -> None:
        """Set up the far end of the pod's link; the near end is there already."""
        self._routes = wiring.routes
        self.configure(wiring.far_lines())

    def drop_traffic(self) -> None:
        """Make the pod silent: who dials it gets no answer of any kind, not even a refusal.

        Its routes become blackholes, so nothing leaves it, while it goes on answering ARP
        and neighbour discovery, which need no route. What is sent to it does arrive.
        Idempotent; ``pass_traffic`` ends it.
        """
        self.configure(route.blackhole() for route in reversed(self._routes))

    def pass_traffic(self) -> None:
        """Let the pod answer again. Idempotent."""
        self.configure(route.line() for route in self._routes)


class SandboxNode(Host):
    """One node: where the proxy runs; it forwards between its pods and the LAN.

    Args:
        name: See ``Namespace``.
        holder: See ``Namespace``.
        addresses: See ``Host``.
        ranges: Where its pods' addresses are taken from.
        make_holder: Makes the holder of a new pod.
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
            name: Its name, and what its backends answer with. That of a closed pod may be
                taken again; the address is a new one.
            mode: ``routed``: a veth of its own with the gateway's address at the node's end.
                ``bridge``: a port of ``cni0``, with hairpin. ``unnumbered``: a veth whose end
                at the node has no IPv4 address and answers ARP for the gateway 169.254.1.1,
                as with Calico.

        Raises:
            SandboxError: The name is taken, or the node's pod range is used up.
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
