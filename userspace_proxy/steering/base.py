"""The contract of every steering.

    agent ──apply({frontend: proxy port or REFUSE})──▶ steering ──▶ kernel
          ──change({some}, gone)─────────────────────▶
          ◀─recovered ports────────────────────────── start()

Rule 1: a steering touches only what bears our name.
Rule 2: ``apply`` says the whole wanted state; what it costs is the difference.
Rule 3: all of an ``apply`` or a ``change`` is in force when it returns, or none of it. A frontend
that the kernel refuses for itself alone (its family is switched off, another program has its
route) is left out, and in ``unsteered``.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..errors import SteeringError
from ..model import Frontend


class Refusal(enum.Enum):
    """What a frontend without usable endpoints is steered to."""

    REFUSE = "refuse"
    """At once: TCP RST, UDP ICMP port unreachable."""


REFUSE = Refusal.REFUSE
Target = int | Refusal
"""A proxy port on this node, or REFUSE."""


class Bind(enum.Enum):
    """Where the listeners of a steering stand."""

    PROXY_PORT = "proxy port"
    """One per Service port and family on the wildcard address, out of the proxy port range."""
    FRONTEND = "frontend"
    """One per frontend, on the frontend's own address and port."""
    LOOPBACK = "loopback"
    """One per frontend: on its own address if that is a loopback one, else on 127.0.0.1 or
    ::1; a port that can't be had is replaced by a free one."""


@dataclass(frozen=True, slots=True)
class SteeringFacts:
    """What every steering must know of this node."""

    service_cidrs: tuple[str, ...] = ()
    """The ranges that cluster IPs come from; empty where nobody said them."""
    refuse_port: int = 0
    """The reserved local port that nobody listens on (PROXY_PORT steerings)."""
    proxy_ports: tuple[int, int] | None = None
    """First and last port that proxy ports are taken from; None where nobody said it."""
    node_addresses: tuple[str, ...] = ()
    """The node's addresses, best first; those that no interface has are passed over."""
    proxy_name: str = ""
    """The proxy's ``--service-proxy-name``, which tells its rules from others'; empty: none."""


Targets = dict[Frontend, Target]


def merge_change(
    applied: Targets | None, changed: Mapping[Frontend, Target], gone: Collection[Frontend]
) -> Targets:
    """Make a change in what was applied; return it, the same object.

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
    """Return what a ``change`` before the first ``apply`` raises."""
    return SteeringError("cannot change what is steered: no steering was applied before")


def render_targets(targets: Mapping[Frontend, Target]) -> str:
    """Return one sorted line a frontend, in the form of :meth:`Steering.render`."""
    return "\n".join(
        sorted(
            f"{frontend.protocol} {frontend.address} -> "
            f"{'refuse' if target is REFUSE else f':{target}'}"
            for frontend, target in targets.items()
        )
    )


class Steering(abc.ABC):
    """Owns what brings a frontend's packets to its listener."""

    name: str
    """As in ``--steering``."""
    bind: Bind
    needs_transparent = False
    """Whether listeners must be transparent sockets (IP_TRANSPARENT), which takes NET_ADMIN or
    NET_RAW: what is steered is admitted to such sockets alone, or comes by a routing rule."""
    unguarded = ""
    """Why what is steered is admitted to any socket, a stranger's included; empty where it isn't.
    Known after the first ``apply``. Source: docs/adr/0013."""

    unsteered: Mapping[Frontend, str] = MappingProxyType({})
    """Frontends of the last ``apply`` and ``change`` that the kernel refuses for themselves alone,
    each with the cause. They aren't in force; ``repair`` tries them again, though not each time.
    Also those that another program's rules take before ours, as of the last ``repair``."""

    @property
    def helper_restarts(self) -> int:
        """How many helper processes were started in the place of one that had crashed."""
        return 0

    @abc.abstractmethod
    async def start(self) -> Mapping[Frontend, int]:
        """Get ready and read what an earlier run of ours left in force.

        Returns:
            The proxy ports that rules of our name still point to, so that the caller can
            listen on the same ones, and 0 for frontends that are refused; empty on a clean
            node.

        Raises:
            SteeringError: A library, a privilege or a kernel part is missing.
            SteeringConflict: Something of our name belongs to somebody else.
        """

    @abc.abstractmethod
    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Make the kernel steer exactly these frontends; idempotent.

        Stale UDP associations of every frontend whose target changed are gone when
        this returns, so a client that keeps its source port is served anew.

        Raises:
            SteeringError: The kernel refused; the old state is in force.
        """

    @abc.abstractmethod
    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Steer some frontends besides those of the last ``apply``, and some no longer.

        It costs what is in it, however many are steered. For UDP it promises what ``apply`` does.

        Args:
            changed: Those that are new, or steered elsewhere; what is so already is no error.
            gone: Those that are no longer steered, unless they are in ``changed``; one that
                wasn't is no error.

        Raises:
            SteeringError: The kernel refused and the old state is in force; or nothing was
                applied before.
        """

    @abc.abstractmethod
    async def render(self) -> str:
        """Return what is in force as text, sorted, read from where it is in force.

        One line a frontend: ``TCP 10.96.7.1:80 -> :36001`` or ``… -> refuse``.
        """

    @abc.abstractmethod
    async def repair(self) -> int:
        """Compare what is in force with what was asked for last and put it right.

        Returns:
            How many frontends or guard rules had drifted; 0 when all was well.
        """

    @abc.abstractmethod
    async def clean_up(self) -> None:
        """Remove everything that bears our name; idempotent, also without ``start``."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of helpers and sockets; what is in force stays in force."""
