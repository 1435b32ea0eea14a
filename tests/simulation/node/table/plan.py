"""What a seed decides: the node and its kernel, and steps in their order."""

from __future__ import annotations

from dataclasses import dataclass, field

from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import Target

from ..netlink_routes import Link

(
    APPLY, CHANGE, REPAIR, FORGET, CLIENT, DRIFT, FAULT, RESTART, DIE, LINK, UNLINK, LATER,
    CLEAN_UP, COUNT, FORWARDING, TAKE, WITHOUT_IPV6, STEERING,
) = (
    "apply", "change", "repair", "forget", "client", "drift", "fault", "restart", "die", "link",
    "unlink", "later", "clean up", "count", "forwarding", "take", "without ipv6", "steering",
)  # fmt: skip

FRONTENDS = (
    Frontend("10.96.7.1", 80, Protocol.TCP),
    Frontend("10.96.7.1", 443, Protocol.TCP),
    Frontend("10.96.0.10", 53, Protocol.UDP),
    Frontend("10.96.0.10", 53, Protocol.TCP),
    Frontend("fd00:96::1", 80, Protocol.TCP),
    Frontend("fd00:96::a", 53, Protocol.UDP),
    Frontend("10.1.0.1", 30053, Protocol.UDP),
    Frontend("10.96.7.2", 80, Protocol.UDP),
)
NFTABLES, LOCAL = "nftables", "local"
"""The steerings that a run may have."""
PORTS = tuple(range(36001, 36007))
REFUSE_PORTS = (35998, 35999)
ENDPOINTS = {
    4: tuple(
        SocketAddress(ip, 8080)
        for ip in ("10.244.1.2", "10.244.1.3", "10.244.2.2", "10.244.2.3", "10.244.2.4")
    ),
    6: tuple(SocketAddress(ip, 8080) for ip in ("fd00:244:1::2", "fd00:244:2::2", "fd00:244:2::3")),
}
UPLINK, POD_LINK, OTHER_POD_LINK, NEW_POD_LINK = 2, 3, 4, 5
NO_LINK = 0
"""In place of the uplink where only addresses have changed, by which no rule leads anyone."""
FORWARDED = ("IPv4", "IPv6")
"""The families whose forwarding is switched, by a step's number."""
NODE_ADDRESSES = ("10.1.0.5", "10.1.0.1", "fd00:1::1")
"""The best first; that one comes and goes."""
FIRST_ADDRESSES = ("10.1.0.9", "fd00:1::5")
"""Where ``redirect`` leads clients outside while the uplink has them; they come and go, too."""


@dataclass(frozen=True)
class Client:
    """Where packets come from."""

    ip: str
    is_local: bool = False

    @property
    def version(self) -> int:
        return 6 if ":" in self.ip else 4


CLIENTS = (
    Client("10.1.7.7"),
    Client("10.244.1.2"),
    Client("10.244.1.3"),
    Client("10.1.0.1", is_local=True),
    Client("fd00:1::9"),
    Client("fd00:244:1::2"),
    Client("fd00:1::1", is_local=True),
    # Behind a link that comes and goes.
    Client("10.244.1.9"),
    Client("fd00:244:1::9"),
)
OUTSIDE = ("10.1.7.7", "fd00:1::9")
"""Those that come by the uplink."""


@dataclass(frozen=True)
class Step:
    """One thing that happens."""

    kind: str
    targets: tuple[tuple[Frontend, Target], ...] = ()
    gone: tuple[Frontend, ...] = ()
    name: str = ""
    """Of a drift, a fault, how a process ends, or what becomes of a client's flow."""
    number: int = 0
    """Which frontend, element, rule; how many; an error number."""
    client: int = 0
    port: int = 0
    """The client's, or the refuse port of a new run."""
    seconds: float = 0.0
    link: Link | None = None
    within: int = 0
    """How many system calls of the next step of the product happen before it; 0: none."""


@dataclass(frozen=True)
class TableNode:
    """The node and its kernel."""

    links: tuple[Link, ...]
    part_messages: int = 30
    elements_per_message: int = 3
    event_calls: int = 2
    lacks: tuple[str, ...] = ()
    send_buffer_bytes: int = 425_984
    listing_cpu_s: float = 0.0
    proxy_name: str = ""
    refuse_port: int = REFUSE_PORTS[0]
    other_proxy: str | None = None
    """The label of another proxy that has tables and routes here; None: there is none."""

    @property
    def sends_in_parts(self) -> bool:
        """Whether its buffer is too small for the transactions of all frontends."""
        return self.send_buffer_bytes < 100_000


@dataclass(frozen=True)
class Plan:
    """All of it."""

    seed: int
    features: frozenset[str]
    node: TableNode
    steps: tuple[Step, ...] = field(default=())
    takes_over: bool = False
    """Whether each run looks for what others have left, as some use another steering."""
