"""Defines the handling of a Service's connections: defaults, and settings of annotations."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from .addresses import Protocol
from .endpoint_names import EndpointName
from .port_ranges import AskedRange


class Balance(enum.StrEnum):
    """The method that chooses the endpoint of a new connection."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    LEAST_CONNECTIONS = "least-connections"
    POWER_OF_TWO_CHOICES = "power-of-two-choices"
    """Of two random endpoints, the one with fewer connections."""
    SOURCE_HASH = "source-hash"
    """By a hash of the client's address."""


class ProxyProtocol(enum.StrEnum):
    """A version of the PROXY protocol, with which a server learns its client's address."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Hold:
    """The limits for waiting clients: for how long, and how many at a time."""

    seconds: float
    """The longest wait, starting when no endpoint could take the client."""
    connections: int = 1000
    """The maximum number of waiting clients per Service port on this node; a further client
    replaces one of them."""


class DataPath(enum.StrEnum):
    """The path of a Service's bytes."""

    USERSPACE = "userspace"
    """Connections pass through the proxy."""
    KERNEL = "kernel"
    """Connections are translated in the kernel, straight to the endpoint."""
    AUTO = "auto"
    """``kernel`` while all endpoints answer probes, else ``userspace``."""


AT_LIMIT = Hold(60.0)
"""The limits for clients that wait for endpoints at their limit, if the Service has no ``hold``."""


class WorkloadKind(enum.StrEnum):
    """A kind of workload that has replicas, as in ``kubectl scale``."""

    DEPLOYMENT = "deployment"
    STATEFUL_SET = "statefulset"


@dataclass(frozen=True, slots=True)
class Workload:
    """The workload that runs a Service's pods, in the Service's namespace."""

    kind: WorkloadKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Handling:
    """The settings of a Service's annotations, passed unchanged to the data plane."""

    balance: Balance = Balance.ROUND_ROBIN
    seed: int = 0
    """Where round robin starts, and the seed of random choices; only embedding sets it."""
    keeps_clients: bool = True
    """Whether endpoints see client addresses, where replies return through this node."""
    hold: Hold | None = None
    """Limits for clients that wait while no endpoint can take them; None if they are refused."""
    slow_start_s: float = 0.0
    """Seconds until a new endpoint gets its full share of connections; 0 for no slow start."""
    max_connections: int | None = None
    """The maximum number of connections from this node to an endpoint; None for no limit."""
    wake: Workload | None = None
    """The workload that runs the pods; None if none is named. If clients wait, an Event is
    reported, and the workload is scaled where that is allowed."""
    idle_after_s: float | None = None
    """Seconds after the last client before ``wake`` is scaled to zero, where allowed. None if it is
    never scaled to zero; demand for it then lasts for the default time."""
    removal_s: float | None = None
    """Seconds after which connections to a removed endpoint are ended; None if they continue."""
    proxy_protocol: ProxyProtocol | None = None
    """The header at the start of TCP connections to endpoints; None for no header."""
    path: DataPath | None = None
    """The annotation ``path``; None if ``--path`` decides."""
    names: tuple[EndpointName, ...] = ()
    """Endpoints by DNS name, from the annotation and from slices."""
    found_by_name: tuple[str, ...] = ()
    """Sorted addresses of these names; each dial first asks the kernel if the address is local."""
    port_ranges: tuple[AskedRange, ...] = ()
    """Ranges of ports that clients may dial, each with the Service port that it contains."""
    shares_affinity: bool = False
    """Whether all ports of the Service send a client to the same pod, if it has session
    affinity."""

    @property
    def waits(self) -> Hold | None:
        """The limits for waiting clients, for any reason; None if clients never wait."""
        return self.hold or (None if self.max_connections is None else AT_LIMIT)

    def of(self, protocol: Protocol) -> Handling:
        """Return the settings for ports of a protocol: only TCP connections have a PROXY header."""
        if protocol is Protocol.TCP or self.proxy_protocol is None:
            return self
        return replace(self, proxy_protocol=None)


DEFAULT_HANDLING = Handling()
