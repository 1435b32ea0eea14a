"""What happens in one run: plain values, which ``drawing`` makes from a seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ..machine.machine import Speed
from ..plan import Event

Object = Mapping[str, Any]

PUT, DELETE, CLIENT, KILL, STOP, CRASH, END, REFUSE, SLOW, DRIFT, CLOCK, DISK, API = (
    "put",
    "delete",
    "client",
    "kill",
    "stop",
    "crash",
    "end",
    "refuse",
    "slow",
    "drift",
    "clock",
    "disk",
    "api",
)
SHORT, TAKE, RANGE, ADDRESSES = "short", "take", "range", "addresses"
REFUSE_FOR, INTERCEPT, BREAK, NO_START = "refuse for", "intercept", "break", "no start"
KERNEL = "kernel"
"""What events are."""

NODE, ZONE = "node-a", "zone-1"
LOOPBACK_IP, NODE_IP, OTHER_NODE_IP = "127.0.0.1", "10.1.0.1", "10.1.0.9"
OTHERS = ("node-b", "node-c")
POD_NETWORK = "10.2.0.0/16"
EXTERNAL_NETWORK = "198.51.100.0/24"
FIRST_PROXY_PORT, _PROXY_PORTS = 17000, 41
DRAIN_S = 1.0
"""For so long what is open goes on when an agent ends, or another one serves in its place."""
STATE = "state.json.gz"
"""The file with an agent's last state."""
NODE_PORTS = range(30000, 32768)
OWN_PODS = tuple(f"10.2.0.{n}" for n in range(1, 7))
"""Where endpoints of this node are."""
OTHER_PODS = tuple(f"10.2.1.{n}" for n in range(1, 7))
"""Where those of other nodes are."""


class Settings(NamedTuple):
    """What users set of an agent; addresses are of IPv4, and those of IPv6 for these."""

    external_networks: tuple[str, ...] = (EXTERNAL_NETWORK,)
    """``--allow-external-ips``."""
    node_port_networks: tuple[str, ...] = ()
    """``--nodeport-addresses``: networks, and words for the loopback and primary addresses."""
    allows_node_endpoints: bool = False
    """``--allow-node-endpoints``."""
    has_only_own_pods: bool = False
    """``--detect-local-mode=NodeCIDR``: inside are pods of this node."""
    min_period_s: float = 0.0
    """``--iptables-min-sync-period``."""
    state_max_age_s: float = 86400.0
    """``--state-max-age``."""
    path: str = "userspace"
    """``--path``."""


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    seed: int
    features: frozenset[str]
    workers: int
    keeps_workers: bool
    """Workers go on serving when the agent dies, for the next one."""
    keeps_state: bool
    """The agent has a folder for its last state."""
    speed: Speed
    objects: tuple[Object, ...]
    """Those that exist at the start."""
    events: tuple[Event, ...]
    endpoint_s: float
    """What an endpoint is reckoned to take in a turn of its namespace."""
    agent_dies_at: tuple[int, ...]
    """Of each agent, in the order of starts, the call at which it dies; 0: it doesn't."""
    calm_at: float
    """From then on nothing fails and nothing changes."""
    queue: int
    """How many clients the node lets wait for one listener at most: net.core.somaxconn."""
    settings: Settings
    addresses: tuple[str, ...]
    """Those of the node at the start."""
    later_workers: int
    """How many all agents but the first have."""
    later_path: str
    """Their ``--path``."""
    crowd: int
    """So many of the first proxy ports are other programs' all the time."""

    @property
    def proxy_ports(self) -> tuple[int, int]:
        """The first and the last proxy port."""
        return FIRST_PROXY_PORT, FIRST_PROXY_PORT + self.crowd + _PROXY_PORTS - 1

    @property
    def _versions(self) -> Iterator[Object]:
        """Yield all that objects are at some time."""
        yield from self.objects
        yield from (event.args[0] for event in self.events if event.what == PUT)

    @property
    def endpoints(self) -> Set[tuple[str, int]]:
        """Where endpoints of slices are at some time."""
        slices = [item for item in self._versions if item["kind"] == "EndpointSlice"]
        return {
            (endpoint["addresses"][0], port["port"])
            for item in slices
            for port in item["ports"]
            for endpoint in item["endpoints"]
        }

    @property
    def turns_s(self) -> float:
        """How long changes of any namespace wait for their turns at most."""
        return max(self.turns_of.values(), default=0.0)

    @cached_property
    def turns_of(self) -> Mapping[str, float]:
        """How long changes of each namespace wait for their turns at most.

        Each of its Services in one turn; a wait is at most eight times as long as the turn before.
        """
        ports: dict[tuple[str, str], int] = defaultdict(int)
        slices: dict[tuple[str, str, str], int] = defaultdict(int)
        for item in self._versions:
            metadata = item["metadata"]
            namespace, name = metadata.get("namespace", ""), metadata["name"]
            if item["kind"] == "Service":
                key = namespace, name
                ports[key] = max(ports[key], len(item["spec"]["ports"]))
            elif item["kind"] == "EndpointSlice":
                of = metadata["labels"]["kubernetes.io/service-name"]
                part = namespace, of, name
                slices[part] = max(slices[part], len(item["endpoints"]))
        sizes: dict[str, int] = defaultdict(int)
        for (namespace, name), number in ports.items():
            endpoints = sum(n for part, n in slices.items() if part[:2] == (namespace, name))
            sizes[namespace] += number * (1 + endpoints)
        return {name: 9 * self.endpoint_s * size for name, size in sizes.items()}
