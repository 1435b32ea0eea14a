"""Defines the contract of every steering mechanism.

    agent ──apply({frontend: proxy port or REFUSE})──▶ steering ──▶ kernel
          ──change({some}, gone)─────────────────────▶
          ◀─recovered ports────────────────────────── start()

Rule 1: a steering mechanism changes only kernel objects with this proxy's name.
Rule 2: ``apply`` receives the complete desired state; its cost depends on the size of the change.
Rule 3: ``apply`` and ``change`` apply the whole change, or raise and apply none of it, with the
exceptions in their docstrings. A frontend that the kernel refuses individually, because its family
is disabled or another program has its route, is omitted and listed in ``unsteered``.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from ..errors import SteeringError
from ..filters.chains import Tables
from ..model import (
    Balance,
    Frontend,
    IPFamily,
    PortKey,
    Protocol,
    ServicePortName,
    SocketAddress,
    Taken,
)
from ..policy.port_ranges import LISTENED_MAX


class Refusal(enum.Enum):
    """The target of a frontend without usable endpoints."""

    REFUSE = "refuse"
    """Refuse connections immediately: TCP by a RST, UDP by ICMP port unreachable."""


REFUSE = Refusal.REFUSE
NO_PORT = PortKey(ServicePortName("", "", ""))
"""The name for targets whose connections aren't counted per Service port."""


class EndpointChoice(NamedTuple):
    """Endpoints among which the kernel chooses, for all clients or for clients of some networks."""

    endpoints: tuple[SocketAddress, ...]
    """One or more entries, equally likely; an endpoint listed twice gets twice the share."""
    networks: tuple[str, ...] | None = None
    """The clients' networks; None for all clients."""


class Affinity(NamedTuple):
    """Session affinity: a client keeps its endpoint."""

    name: str
    """Frontends with the same name share affinity entries."""
    timeout_s: int
    """An entry expires if the client makes no new connection for this number of seconds."""
    is_of_pods: bool = False
    """Whether an entry applies to all ports of an endpoint's address, because the endpoints of
    frontends with the same name have different ports."""


@dataclass(frozen=True, slots=True)
class KernelTarget:
    """Endpoints to which the kernel translates a frontend's new connections.

    A change of the target doesn't affect open TCP connections.
    """

    port: int | Refusal
    """The proxy port, or REFUSE, for clients that match no choice."""
    choices: tuple[EndpointChoice, ...] = ()
    """The first choice whose networks contain the client is used. UDP flows to other endpoints are
    ended."""
    affinity: Affinity | None = None
    is_on: bool = True
    """Whether new connections are translated; otherwise all are steered to the proxy port."""
    by_client: bool = False
    """Whether to choose by the client's address instead of at random. A choice then has a fixed
    number of slots, each with one of the choice's endpoints."""
    name: PortKey = NO_PORT
    """The Service port under which the results of connections are counted."""


Target = int | Refusal | KernelTarget
"""A proxy port on this node, REFUSE, or endpoints."""


class Bind(enum.Enum):
    """The addresses on which a steering mechanism binds its listeners."""

    PROXY_PORT = "proxy port"
    """One listener per Service port and family on the wildcard address, in the proxy port range."""
    FRONTEND = "frontend"
    """One listener per frontend, on the frontend's own address and port."""
    LOOPBACK = "loopback"
    """One listener per frontend: on the frontend's own address if that is a loopback address,
    otherwise on 127.0.0.1 or ::1. If its port is unavailable, a free port is used."""


@dataclass(frozen=True, slots=True)
class SteeringFacts:
    """The facts about this node that steering mechanisms need."""

    service_cidrs: tuple[str, ...] = ()
    """The ranges of cluster IPs; empty if not configured."""
    refuse_port: int = 0
    """The port without a listener for refused clients of PROXY_PORT mechanisms; 0 for none."""
    proxy_ports: tuple[int, int] | None = None
    """The first and the last proxy port; None if no range is configured."""
    node_addresses: tuple[str, ...] = ()
    """The node's addresses, best first; addresses that no interface has are ignored."""
    proxy_name: str = ""
    """The ``--service-proxy-name``, which distinguishes this proxy's rules; empty without one."""


Targets = dict[Frontend, Target]


def merge_change(
    applied: Targets | None, changed: Mapping[Frontend, Target], gone: Collection[Frontend]
) -> Targets:
    """Merge a change into the applied targets in place, and return them.

    Raises:
        SteeringError: ``apply`` hasn't been called.
    """
    if applied is None:
        raise nothing_applied()
    for frontend in gone:
        applied.pop(frontend, None)
    applied.update(changed)
    return applied


def nothing_applied() -> SteeringError:
    """Return the error for a ``change`` before the first ``apply``."""
    return SteeringError("cannot change what is steered: no steering was applied before")


def render_targets(targets: Mapping[Frontend, Target]) -> str:
    """Return a line per frontend, sorted, in the form of :meth:`Steering.render`."""
    return "\n".join(
        sorted(
            f"{frontend.protocol} {frontend.address} -> {_render_target(target)}"
            for frontend, target in targets.items()
        )
    )


def _render_target(target: Target) -> str:
    if isinstance(target, KernelTarget) and target.is_on:
        endpoints = sorted({str(e) for choice in target.choices for e in choice.endpoints})
        return f"{_render_target(target.port)}, in the kernel to {' '.join(endpoints)}"
    if isinstance(target, KernelTarget):
        return _render_target(target.port)
    return "refuse" if isinstance(target, Refusal) else f":{target}"


class Steering(abc.ABC):
    """A mechanism that steers frontends' packets to their listeners."""

    name: str
    """The value of ``--steering``."""
    bind: Bind
    needs_transparent = False
    """Whether listeners must be transparent sockets (IP_TRANSPARENT), which require NET_ADMIN or
    NET_RAW, because steered packets are admitted only to such sockets."""
    unguarded = ""
    """Why steered packets are admitted to any socket, even another program's; empty if they aren't.
    :meth:`start` or the first :meth:`apply` sets it. Source: docs/adr/0013."""

    no_kernel_path: Mapping[IPFamily | Balance | Protocol, str] = MappingProxyType(
        {
            **dict.fromkeys(
                IPFamily, "this steering has no kernel path: it needs --steering=nftables"
            ),
            Protocol.TCP: f"this steering has ranges of at most {LISTENED_MAX} ports: "
            "it needs --steering=nftables",
        }
    )
    """The families and balancing strategies for which no :class:`KernelTarget` is accepted, with
    the reasons. For ``nftables``, :meth:`start` sets and :meth:`repair` updates them. An entry for
    TCP states why port ranges can't be steered: each of their ports is a frontend instead."""

    unsteered: Mapping[Frontend, str | Taken] = MappingProxyType({})
    """Frontends of the last ``apply`` and ``change`` that the kernel refuses individually, with the
    causes. These aren't applied; ``repair`` retries them, but not at every call. Applied frontends
    whose packets another program's rules translate first, or drop, are also included, as of the
    last ``repair``; their cause is a :class:`.Taken`."""

    @property
    def helper_restarts(self) -> int:
        """The number of helper processes that were replaced after a crash or a time-out."""
        return 0

    @abc.abstractmethod
    async def start(self) -> Mapping[Frontend, int]:
        """Prepare, and read the state that an earlier run of this proxy left in the kernel.

        Returns: The proxy port to which each frontend's rules still point, so that the caller can
            listen on it again; 0 for refused frontends. With Bind.FRONTEND, served frontends map to
            their own ports.

        Raises:
            SteeringError: A library, a privilege or a kernel part is missing.
            SteeringConflict: An object with this proxy's name belongs to another program.
        """

    @abc.abstractmethod
    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Steer exactly these frontends; idempotent.

        When this returns, stale UDP associations of frontends with a new target are removed, so a
        client that keeps its source port reaches the new target.

        Raises:
            SteeringError: The kernel refused the change; the old state is unchanged. If the first
                ``apply`` fails, some frontends may already point to endpoints, so call it again.
        """

    @abc.abstractmethod
    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Add or change some frontends, and stop steering others.

        The cost depends only on the size of the change. Call :meth:`forget_stale` next: until then
        UDP associations may point to old targets.

        Args:
            changed: New or changed frontends, with their targets; unchanged frontends are allowed.
            gone: Frontends to stop steering, unless they are in ``changed``; unsteered frontends
                are allowed.

        Raises:
            SteeringError: The kernel refused the change, or ``apply`` hasn't been called. The old
                state is unchanged; if the kernel also refused to undo a step, the next ``repair``
                restores it.
        """

    async def forget_stale(self) -> None:  # noqa: B027 - most steerings have nothing to do
        """Remove the conntrack entries that a :meth:`change` has made stale. Idempotent.

        It is separate from ``change`` because the kernel may search its whole table for tens of
        milliseconds, and health check ports don't wait for that. :meth:`repair` retries failures.
        """

    @abc.abstractmethod
    async def render(self) -> str:
        """Return the kernel's state as sorted text.

        One line per frontend: ``TCP 10.96.7.1:80 -> :36001`` or ``… -> refuse``.

        Raises:
            SteeringError: The kernel refused to list its state.
        """

    async def kernel_connections(self) -> Mapping[Frontend, int] | None:
        """Return the number of connections that the kernel translated directly to endpoints.

        It takes 2 µs per frontend, in the steering thread.

        Returns: The number by frontend, counted since the frontend was first on the kernel path; it
            never decreases while the frontend is steered. None if this mechanism, or this kernel,
            doesn't count connections.

        Raises:
            SteeringError: The kernel failed to list the counters.
        """
        return None

    async def other_ports(self) -> Mapping[Frontend, int]:
        """Return ports of ClusterIPs that clients recently dialled although no Service has them.

        Returns: The number of refused connections (flows), by address, port and protocol; it starts
            again after a minute without any. Empty if this mechanism doesn't count them.

        Raises:
            SteeringError: The kernel failed to list the counters.
        """
        return {}

    def note_legacy(self, _tables: Tables) -> None:
        """Record legacy tables that may drop packets; the next :meth:`repair` evaluates them."""
        return

    def dropping_chain(self, _endpoint: SocketAddress, _protocol: Protocol) -> str:
        """Return the chain of another program that drops or translates an endpoint's packets.

        The text, as of the last :meth:`repair`, completes a sentence. It is empty unless a chain
        certainly drops or translates the packets.
        """
        return ""

    @abc.abstractmethod
    async def repair(self) -> int:
        """Repair the kernel's state; return the number of frontends and guard rules that differed.

        Raises:
            SteeringError: The kernel refused to list or change its state.
        """

    @abc.abstractmethod
    async def clean_up(self) -> None:
        """Remove everything with this proxy's name; idempotent; may be called without ``start``.

        Raises:
            SteeringError: The kernel refused to list or remove an object.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Release helpers and sockets; rules and routes stay in the kernel."""


class NoSteering(Steering):
    """No steering: targets are only recorded for the status page, and clients dial loopback.

    For embedding in a program or test suite: it needs no privileges, rules or routes.
    """

    name = "none"
    bind = Bind.LOOPBACK

    def __init__(self, facts: SteeringFacts | None = None) -> None:
        self.facts = facts or SteeringFacts()
        self._targets: Targets | None = None

    async def start(self) -> Mapping[Frontend, int]:
        """Return no ports, because no state outlives the process."""
        return {}

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        self._targets = dict(wanted)

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        merge_change(self._targets, changed, gone)

    async def render(self) -> str:
        return render_targets(self._targets or {})

    async def repair(self) -> int:
        """Return 0, because there is no state outside this process."""
        return 0

    async def clean_up(self) -> None:
        self._targets = None

    async def close(self) -> None:
        """Do nothing: this mechanism has no helpers or sockets."""
