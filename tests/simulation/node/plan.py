"""The events and settings of one run: plain values, which ``drawing`` draws from a seed."""

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
"""The kinds of events."""

NODE, ZONE = "node-a", "zone-1"
LOOPBACK_IP, NODE_IP, OTHER_NODE_IP = "127.0.0.1", "10.1.0.1", "10.1.0.9"
OTHERS = ("node-b", "node-c")
POD_NETWORK = "10.2.0.0/16"
EXTERNAL_NETWORK = "198.51.100.0/24"
FIRST_PROXY_PORT, _PROXY_PORTS = 17000, 41
DRAIN_S = 1.0
"""The time for which connections stay open after an agent exits, or another one takes over."""
STATE = "state.json.gz"
"""The file for an agent's saved state."""
NODE_PORTS = range(30000, 32768)
OWN_PODS = tuple(f"10.2.0.{n}" for n in range(1, 7))
"""The addresses of this node's endpoints."""
OTHER_PODS = tuple(f"10.2.1.{n}" for n in range(1, 7))
"""The addresses of other nodes' endpoints."""


class Settings(NamedTuple):
    """An agent's settings; IPv4 addresses stand for their IPv6 counterparts, too."""

    external_networks: tuple[str, ...] = (EXTERNAL_NETWORK,)
    """``--allow-external-ips``."""
    node_port_networks: tuple[str, ...] = ()
    """``--nodeport-addresses``: networks, and words for the loopback and primary addresses."""
    allows_node_endpoints: bool = False
    """``--allow-node-endpoints``."""
    has_only_own_pods: bool = False
    """``--detect-local-mode=NodeCIDR``: only this node's pods count as inside."""
    min_period_s: float = 0.0
    """``--iptables-min-sync-period``."""
    state_max_age_s: float = 86400.0
    """``--state-max-age``."""
    path: str = "userspace"
    """``--path``."""


@dataclass(frozen=True)
class Plan:
    """The plan of a whole run."""

    seed: int
    features: frozenset[str]
    workers: int
    keeps_workers: bool
    """Whether workers continue after the agent's death, and serve until the next one takes over."""
    keeps_state: bool
    """Whether the agent has a folder for its saved state."""
    speed: Speed
    objects: tuple[Object, ...]
    """The objects that exist at the start."""
    events: tuple[Event, ...]
    endpoint_s: float
    """The estimated part of an endpoint in a turn's duration; 0 for the product's own estimate."""
    agent_dies_at: tuple[int, ...]
    """For each started agent, the number of the call at which it dies; 0 if it doesn't die."""
    calm_at: float
    """The time from which nothing fails or changes."""
    queue: int
    """The maximum number of clients that wait for one listener: net.core.somaxconn."""
    settings: Settings
    addresses: tuple[str, ...]
    """The node's addresses at the start."""
    later_workers: int
    """The number of workers of all agents but the first."""
    later_path: str
    """The ``--path`` of all agents but the first."""
    crowd: int
    """The number of first proxy ports that other programs have all the time."""

    @property
    def proxy_ports(self) -> tuple[int, int]:
        """The first and last proxy port."""
        return FIRST_PROXY_PORT, FIRST_PROXY_PORT + self.crowd + _PROXY_PORTS - 1

    @property
    def _versions(self) -> Iterator[Object]:
        """Yield all versions of objects."""
        yield from self.objects
        yield from (event.args[0] for event in self.events if event.what == PUT)

    @property
    def endpoints(self) -> Set[tuple[str, int]]:
        """The addresses of all endpoints that slices ever list."""
        slices = [item for item in self._versions if item["kind"] == "EndpointSlice"]
        return {
            (endpoint["addresses"][0], port["port"])
            for item in slices
            for port in item["ports"]
            for endpoint in item["endpoints"]
        }

    @property
    def turns_s(self) -> float:
        """The longest time for which any namespace's changes wait for their turns."""
        return max(self.turns_of.values(), default=0.0)

    @cached_property
    def turns_of(self) -> Mapping[str, float]:
        """The longest time for which each namespace's changes wait for their turns.

        Each Service of the namespace has a turn; a wait is at most eight times as long as the
        previous turn.
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
