"""The contract of every steering.

    agent ──apply({frontend: proxy port or REFUSE})──▶ steering ──▶ kernel
          ──change({some}, gone)─────────────────────▶
          ◀─recovered ports────────────────────────── start()

Rule 1: a steering touches only what has this proxy's name.
Rule 2: ``apply`` gets the complete desired state; its cost is that of the difference.
Rule 3: all of an ``apply`` or a ``change`` is in force when it returns, or none of it. A frontend
that the kernel refuses individually (its family is disabled, another program has its route) is
left out and listed in ``unsteered``.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from ..errors import SteeringError
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


class Refusal(enum.Enum):
    """The target of a frontend without usable endpoints."""

    REFUSE = "refuse"
    """At once: TCP RST, UDP ICMP port unreachable."""


REFUSE = Refusal.REFUSE
NO_PORT = PortKey(ServicePortName("", "", ""))
"""Of targets to which nothing is counted."""


class EndpointChoice(NamedTuple):
    """Endpoints of which the kernel chooses one, for some clients."""

    endpoints: tuple[SocketAddress, ...]
    """At least one; each has the same chance, so one that is there twice has two."""
    networks: tuple[str, ...] | None = None
    """Of the clients; None: all."""


class Affinity(NamedTuple):
    """Session affinity: the endpoint of a client stays the same."""

    name: str
    """What it belongs to: all frontends of one name share their clients' endpoints."""
    timeout_s: int
    """Seconds without a new connection after which a client is free again."""


@dataclass(frozen=True, slots=True)
class KernelTarget:
    """The target of a frontend whose new connections the kernel translates to endpoints.

    Connections that are open stay as they are.
    """

    port: int
    """The proxy port, for clients that match no choice, and for all while there is no choice."""
    choices: tuple[EndpointChoice, ...] = ()
    """The first whose networks contain the client counts. UDP flows to other endpoints end."""
    affinity: Affinity | None = None
    is_on: bool = True
    """Whether new connections are translated; otherwise all go to the proxy port."""
    by_client: bool = False
    """Whether a client's address decides, not chance: a choice has a fixed number of slots then,
    each with one of its endpoints."""
    name: PortKey = NO_PORT
    """The Service port, to which what becomes of connections to an endpoint is counted."""


Target = int | Refusal | KernelTarget
"""A proxy port on this node, REFUSE, or endpoints."""


class Bind(enum.Enum):
    """Where the listeners of a steering are bound."""

    PROXY_PORT = "proxy port"
    """One per Service port and family on the wildcard address, in the proxy port range."""
    FRONTEND = "frontend"
    """One per frontend, on the frontend's own address and port."""
    LOOPBACK = "loopback"
    """One per frontend: on its own address if that is a loopback address, else on 127.0.0.1 or
    ::1; a port that isn't available is replaced by a free one."""


class HookOptions(NamedTuple):
    """Whether and where connect() of this node's programs is translated."""

    is_required: bool = False
    """The start fails if that can't work; otherwise rules lead all clients."""
    cgroup: str = ""
    """The folder of cgroup v2 whose programs are meant; empty: its root, which contains all."""
    host_only: bool = False
    """Only programs in this network namespace are meant."""


@dataclass(frozen=True, slots=True)
class SteeringFacts:
    """The facts about this node that steerings need."""

    service_cidrs: tuple[str, ...] = ()
    """The ranges of cluster IPs; empty where they aren't configured."""
    refuse_port: int = 0
    """The reserved local port without a listener (PROXY_PORT steerings)."""
    proxy_ports: tuple[int, int] | None = None
    """First and last proxy port; None where no range is configured."""
    node_addresses: tuple[str, ...] = ()
    """The node's addresses, best first; addresses that no interface has are ignored."""
    proxy_name: str = ""
    """The proxy's ``--service-proxy-name``, which separates its rules from others'."""
    hooks: HookOptions | None = None
    """None: connect() isn't translated."""


Targets = dict[Frontend, Target]


def merge_change(
    applied: Targets | None, changed: Mapping[Frontend, Target], gone: Collection[Frontend]
) -> Targets:
    """Merge a change into what was applied; return the same object.

    Raises:
        SteeringError: Nothing was applied.
    """
    if applied is None:
        raise nothing_applied()
    for frontend in gone:
        applied.pop(frontend, None)
    applied.update(changed)
    return applied


def nothing_applied() -> SteeringError:
    """Return the error of a ``change`` before the first ``apply``."""
    return SteeringError("cannot change what is steered: no steering was applied before")


def render_targets(targets: Mapping[Frontend, Target]) -> str:
    """Return one sorted line per frontend, in the form of :meth:`Steering.render`."""
    return "\n".join(
        sorted(
            f"{frontend.protocol} {frontend.address} -> {_render_target(target)}"
            for frontend, target in targets.items()
        )
    )


def _render_target(target: Target) -> str:
    if isinstance(target, KernelTarget) and target.is_on:
        endpoints = sorted({str(e) for choice in target.choices for e in choice.endpoints})
        return f":{target.port}, in the kernel to {' '.join(endpoints)}"
    if isinstance(target, KernelTarget):
        return f":{target.port}"
    return "refuse" if isinstance(target, Refusal) else f":{target}"


class Steering(abc.ABC):
    """Brings the packets of frontends to their listeners."""

    name: str
    """As in ``--steering``."""
    bind: Bind
    needs_transparent = False
    """Whether listeners must be transparent sockets (IP_TRANSPARENT), which requires NET_ADMIN or
    NET_RAW: steered packets are admitted only to such sockets."""
    unguarded = ""
    """Why steered packets are admitted to any socket, also one of another program; empty where
    they aren't. Known after the first ``apply``. Source: docs/adr/0013."""

    no_kernel_path: Mapping[IPFamily | Balance, str] = MappingProxyType(
        dict.fromkeys(IPFamily, "this steering has no kernel path: it needs --steering=nftables")
    )
    """The families, and the choices of endpoints, for which it takes no :class:`KernelTarget`, with
    the reasons; those of nftables are known after :meth:`start`, and may change with each
    :meth:`repair`."""

    unsteered: Mapping[Frontend, str | Taken] = MappingProxyType({})
    """Frontends of the last ``apply`` and ``change`` that the kernel refuses individually, with the
    causes. They aren't in force; ``repair`` retries them, though not each time. Also frontends
    that another program's rules translate first, or drop packets to, as of the last ``repair``:
    a :class:`.Taken`, or a :class:`.Doubt` if that isn't certain, and they are in force."""

    @property
    def helper_restarts(self) -> int:
        """How many helper processes replaced one that had crashed."""
        return 0

    @abc.abstractmethod
    async def start(self) -> Mapping[Frontend, int]:
        """Prepare, and read what an earlier run of this proxy left in force.

        Returns:
            The proxy ports that rules still point to, so that the caller can listen there again,
            and 0 for refused frontends; with Bind.FRONTEND their own ports, if they are served.

        Raises:
            SteeringError: A library, a privilege or a kernel part is missing.
            SteeringConflict: Something with this proxy's name belongs to another program.
        """

    @abc.abstractmethod
    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Make the kernel steer exactly these frontends; idempotent.

        When this returns, stale UDP associations of every frontend whose target changed are
        removed, so a client that keeps its source port reaches the new target.

        Raises:
            SteeringError: The kernel refused; the old state is in force. After a first ``apply``
                some frontends may lead to endpoints already: repeat it.
        """

    @abc.abstractmethod
    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Steer some frontends besides those of the last ``apply``, and stop steering others.

        The cost depends on the size of the change only. Call :meth:`forget_stale` next: until then
        UDP associations may lead where they led before.

        Args:
            changed: New frontends, and those with a new target; unchanged ones are no error.
            gone: Frontends that are no longer steered, unless they are in ``changed``; one that
                wasn't steered is no error.

        Raises:
            SteeringError: The kernel refused and the old state is in force, or will be with the
                next ``repair`` if the kernel refused to undo a part; or nothing was applied before.
        """

    async def forget_stale(self) -> None:  # noqa: B027 - most have nothing to do
        """Remove the conntrack entries that a :meth:`change` has made stale. Idempotent.

        It is apart because the kernel may search its whole table for them, for tens of
        milliseconds: health check ports don't wait for that. What fails is left to :meth:`repair`,
        which reports it.
        """

    @abc.abstractmethod
    async def render(self) -> str:
        """Return the state in force as sorted text, read from the kernel.

        One line per frontend: ``TCP 10.96.7.1:80 -> :36001`` or ``… -> refuse``.
        """

    async def kernel_connections(self) -> Mapping[Frontend, int] | None:
        """Return how many connections the kernel has translated straight to endpoints.

        It takes 2 µs for a frontend, in a thread.

        Returns:
            Numbers that never shrink, by frontend, while it is steered and since it was first on
            the kernel path. None: this steering, or this kernel, doesn't count them.

        Raises:
            SteeringError: The kernel doesn't list them.
        """
        return None

    def dropping_chain(self, _endpoint: SocketAddress, _protocol: Protocol) -> str:
        """Return which chain of another program takes packets to an endpoint, or its answers.

        As the end of a sentence, as of the last :meth:`repair`; empty if none certainly does.
        """
        return ""

    @abc.abstractmethod
    async def repair(self) -> int:
        """Compare the state in force with the desired state, and repair what differs.

        Returns:
            How many frontends or guard rules had drifted.
        """

    @abc.abstractmethod
    async def clean_up(self) -> None:
        """Remove everything with this proxy's name; idempotent, also without ``start``."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Release helpers and sockets; what is in force stays in force."""


class NoSteering(Steering):
    """Records what is applied, for the status page: clients dial the listeners, on loopback.

    For embedding in a program or a test suite: no privilege, no rule, no route.
    """

    name = "none"
    bind = Bind.LOOPBACK

    def __init__(self, facts: SteeringFacts | None = None) -> None:
        self.facts = facts or SteeringFacts()
        self._targets: Targets | None = None

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering; nothing outlives the process."""
        return {}

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        self._targets = dict(wanted)

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        merge_change(self._targets, changed, gone)

    async def render(self) -> str:
        return render_targets(self._targets or {})

    async def repair(self) -> int:
        """Part of Steering; memory doesn't drift."""
        return 0

    async def clean_up(self) -> None:
        self._targets = None

    async def close(self) -> None:
        """Part of Steering."""
