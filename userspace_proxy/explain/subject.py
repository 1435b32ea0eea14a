"""The facts about one Service, read from the JSON of ``/api/v1/status``.

Only this module knows the names in the JSON. What is planned without a proxy is rendered as the
same JSON first (``planned``), so there is one way to explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..status.paths import NO_PROBES, ProbesView
from ..status.port_state import Level

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CauseFacts:
    """A cause; the fields are those of :class:`~..model.Cause`, the code may be a newer one."""

    code: str
    sentence: str
    object: str = ""
    hint: str = ""
    count: int = 0
    last_at: float = 0.0


@dataclass(frozen=True, slots=True)
class FrontendFacts:
    """One address that clients dial."""

    address: str
    kind: str
    target: str
    """Where it leads; empty where nothing listens because no proxy runs."""
    is_reached: bool


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """One endpoint."""

    address: str
    state: str
    is_usable: bool
    node: str
    ejected_for_s: float | None
    cause: CauseFacts | None
    connections: int
    failures: int
    preference: str = ""
    """Weight and priority in words; empty if it has neither."""

    @property
    def is_refused(self) -> bool:
        """Whether the proxy never dials it: its address is reserved, or this node's."""
        return self.state.startswith("refused")


@dataclass(frozen=True, slots=True)
class PortFacts:
    """One family and side of one Service port."""

    name: str
    """``shop/web:http``."""
    family: str
    side: str
    protocol: str
    frontends: tuple[FrontendFacts, ...]
    endpoints: tuple[EndpointFacts, ...]
    admits: tuple[str, ...] | None
    """Networks whose clients are admitted; None admits all."""
    policy: str
    is_dropping: bool
    level: Level
    sentence: str
    causes: tuple[CauseFacts, ...]
    turned_away: tuple[CauseFacts, ...]
    """Clients whose packets were dropped, by cause."""
    connections: int
    saved: int
    word: str
    """Its state: ``served``, ``holding``, …"""
    waiting: int
    """Connections that wait for an endpoint now."""
    longest_wait_s: float
    path: str = "userspace"
    path_since: float = 0.0
    path_why: str = ""
    kernel_connections: int | None = None
    """Those that the kernel has led straight to endpoints; None where they aren't counted."""
    is_probed: bool = False
    """Probes of its endpoints choose the path."""

    @property
    def title(self) -> str:
        """The name with what tells it from the others of that name."""
        words = [self.family, *([self.side] if self.side else [])]
        return f"{self.name} ({', '.join(words)})"


@dataclass(frozen=True, slots=True)
class IgnoredFacts:
    """Why a Service, or one of its ports, isn't served."""

    port: str
    """Its name or number; empty for the whole Service."""
    cause: CauseFacts
    is_conflict: bool
    """It should be served, but another Service has its address."""


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """What the proxy reports about itself and its node."""

    name: str = ""
    steering: str = ""
    steering_problem: str = ""
    repairs: int = 0
    firewalls: tuple[tuple[str, str, str], ...] = ()
    """Chain, why it drops packets, remedy."""
    source: str = ""
    """The server's URL, or a path."""
    is_cluster: bool = True
    """The source is an API server."""
    source_problems: tuple[str, ...] = ()
    last_state_age_s: float | None = None
    """The age of the last state if that is what is served."""
    pending: str = ""
    """Why the newest plan isn't in force; empty if it is."""
    network_namespace: int = 0
    """The inode of its network namespace; 0 if unknown."""
    probes: ProbesView = NO_PROBES


@dataclass(frozen=True, slots=True)
class Subject:
    """One Service as it is served, or would be."""

    service: str
    """``namespace/name``."""
    origin: str
    """Where the facts are from, in words."""
    now: float
    ports: tuple[PortFacts, ...]
    ignored: tuple[IgnoredFacts, ...] = ()
    node: ProxyFacts | None = None
    """None if no proxy was asked."""


def read_subject(status: Json, service: str, origin: str, *, is_live: bool) -> Subject:
    """Return the facts about a Service, or one port of it.

    Args:
        status: The JSON, which may contain other Services.
        service: ``namespace/name`` or ``namespace/name:port``.
        is_live: The JSON is a running proxy's.
    """
    ports = tuple(map(_port, status["ports"]))
    key = service.partition(":")[0]
    return Subject(
        service=key,
        origin=origin,
        now=status["now"],
        ports=tuple(p for p in ports if service in (p.name, p.name.partition(":")[0])),
        ignored=tuple(_ignored(item) for item in status["ignored"] if item["service"] == key),
        node=_node(status) if is_live else None,
    )


def _port(port: Json) -> PortFacts:
    name = f"{port['namespace']}/{port['service']}"
    state = port["state"]
    admits = port["admits"]
    return PortFacts(
        name=f"{name}:{port['port']}" if port["port"] else name,
        family=port["family"],
        side=port["side"],
        protocol=port["protocol"],
        frontends=tuple(_frontend(item) for item in port["frontends"]),
        endpoints=tuple(_endpoint(item) for item in port["endpoints"]),
        admits=None if admits is None else tuple(admits),
        policy=port["policy"],
        is_dropping=port["is_dropping"],
        level=Level(state["level"]),
        sentence=state["sentence"],
        causes=tuple(_cause(cause) for cause in state["causes"]),
        turned_away=tuple(_cause(cause) for cause in port.get("turned_away", ())),
        connections=port["connections"],
        saved=port.get("saved", 0),
        word=state["word"],
        waiting=port.get("waits", {}).get("waiting", 0),
        longest_wait_s=port.get("waits", {}).get("longest_s", 0.0),
        path=port.get("path", "userspace"),
        path_since=port.get("path_since", 0.0),
        path_why=port.get("path_why", ""),
        kernel_connections=port.get("kernel_connections"),
        is_probed=port.get("is_probed", False),
    )


def _frontend(item: Json) -> FrontendFacts:
    return FrontendFacts(item["address"], item["kind"], item["target"], item["is_reached"])


def _endpoint(item: Json) -> EndpointFacts:
    return EndpointFacts(
        address=item["address"],
        state=item["state"],
        is_usable=item["is_usable"],
        node=item["node"],
        ejected_for_s=item["ejected_for_s"],
        cause=_cause(item["cause"]) if item["cause"] else None,
        connections=item["connections"],
        failures=item["failures"],
        preference=item.get("preference", ""),
    )


def _cause(cause: Json) -> CauseFacts:
    return CauseFacts(
        cause["code"],
        cause["sentence"],
        cause["object"],
        cause["hint"],
        cause["count"],
        cause["last_at"],
    )


def _ignored(item: Json) -> IgnoredFacts:
    return IgnoredFacts(item["port"], _cause(item["cause"]), item["is_conflict"])


def _node(status: Json) -> ProxyFacts:
    steering, source = status["steering"], status["source"]
    return ProxyFacts(
        name=status["node"],
        steering=steering["name"],
        steering_problem=steering["problem"],
        repairs=steering["repairs"],
        firewalls=tuple((f["chain"], f["why"], f["way_out"]) for f in status["firewalls"]),
        source=source["location"],
        is_cluster=source["kind"] == "kubernetes",
        source_problems=tuple(source["problems"]),
        last_state_age_s=status["last_state"]["age_s"],
        pending=status["sync"]["problem"],
        network_namespace=status.get("network_namespace", 0),
        probes=_probes(status.get("probes", {})),
    )


def _probes(probes: Json) -> ProbesView:
    return ProbesView(
        endpoints=probes.get("endpoints", 0),
        interval_s=probes.get("interval_s", 0.0),
        per_second=probes.get("per_second", 0),
    )
