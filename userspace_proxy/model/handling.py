"""How connections to a Service are handled, where its annotations ask for something else."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from .addresses import Protocol
from .endpoint_names import EndpointName


class Balance(enum.StrEnum):
    """How the endpoint of a new connection is chosen."""

    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    LEAST_CONNECTIONS = "least-connections"
    POWER_OF_TWO_CHOICES = "power-of-two-choices"
    """The one of two random ones that has fewer connections."""
    SOURCE_HASH = "source-hash"
    """By the client's address."""


class ProxyProtocol(enum.StrEnum):
    """A version of the PROXY protocol, which tells a server who its client is."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Hold:
    """How long clients wait for an endpoint, and how many of them."""

    seconds: float
    """From the first time that no endpoint could take the client."""
    connections: int = 1000
    """At most this many of one Service port on this node; the oldest one is ended for a new one."""


class DataPath(enum.StrEnum):
    """How the bytes of a Service travel."""

    USERSPACE = "userspace"
    """Through the proxy."""
    KERNEL = "kernel"
    """Straight to the endpoint, by address translation."""
    AUTO = "auto"
    """``kernel`` while all endpoints answer probes, else ``userspace``."""


AT_LIMIT = Hold(60.0)
"""How clients wait where all endpoints are at their limit, and the Service doesn't say."""


class WorkloadKind(enum.StrEnum):
    """A kind of workload that has replicas, as in ``kubectl scale``."""

    DEPLOYMENT = "deployment"
    STATEFUL_SET = "statefulset"


@dataclass(frozen=True, slots=True)
class Workload:
    """What runs the pods of a Service, in the namespace of the Service."""

    kind: WorkloadKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Handling:
    """What the annotations of a Service ask for; one value from the Service to the data plane."""

    balance: Balance = Balance.ROUND_ROBIN
    seed: int = 0
    """The position of the first turn, and the seed of random choices; only embedding sets it."""
    keeps_clients: bool = True
    """Endpoints may see client addresses where replies return through this node."""
    hold: Hold | None = None
    """Clients wait while no endpoint can take them; None: they are refused."""
    slow_start_s: float = 0.0
    """Seconds in which a new endpoint gets its full share of connections; 0: at once."""
    max_connections: int | None = None
    """Bounds connections to one endpoint from this node; further ones wait. None: no bound."""
    wake: Workload | None = None
    """Needed while clients wait: asked for by an Event, and scaled from zero where allowed."""
    idle_after_s: float | None = None
    """Seconds after the last client in which ``wake`` is still needed; then it is scaled to zero
    where allowed. None: as long as demand lasts without it, and it isn't scaled to zero."""
    removal_s: float | None = None
    """Seconds after which connections to an endpoint that has left end; None: they don't."""
    proxy_protocol: ProxyProtocol | None = None
    """TCP connections to endpoints begin with this header; None: with the client's bytes."""
    path: DataPath | None = None
    """None: as ``--path`` says."""
    names: tuple[EndpointName, ...] = ()
    """Endpoints by name, also those of slices."""
    found_by_name: tuple[str, ...] = ()
    """Their addresses, sorted: at each dial the kernel is asked whether one is this node's."""

    @property
    def waits(self) -> Hold | None:
        """How long clients wait, and how many, for whatever reason; None if none does."""
        return self.hold or (None if self.max_connections is None else AT_LIMIT)

    def of(self, protocol: Protocol) -> Handling:
        """Return what concerns ports of a protocol: only TCP has a header."""
        if protocol is Protocol.TCP or self.proxy_protocol is None:
            return self
        return replace(self, proxy_protocol=None)


DEFAULT_HANDLING = Handling()
