"""The contract of every steering.

    agent ──apply({frontend: proxy port or REFUSE})──▶ steering ──▶ kernel
          ◀─recovered ports────────────────────────── start()

Rule 1: a steering touches only what bears our name.
Rule 2: ``apply`` says the whole wanted state; what it costs is the difference.
Rule 3: all of an ``apply`` is in force when it returns, or none of it.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping
from dataclasses import dataclass

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

    @abc.abstractmethod
    async def start(self) -> Mapping[Frontend, int]:
        """Get ready and read what an earlier run of ours left in force.

        Returns:
            The proxy ports that rules of our name still point to, so that the
            caller can listen on the same ones; empty on a clean node.

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
    async def render(self) -> str:
        """Return what is in force as text, sorted, read from where it is in force.

        One line a frontend: ``TCP 10.96.7.1:80 -> :36001`` or ``… -> refuse``.
        """

    @abc.abstractmethod
    async def repair(self) -> int:
        """Compare what is in force with the last ``apply`` and put it right.

        Returns:
            How many frontends or guard rules had drifted; 0 when all was well.
        """

    @abc.abstractmethod
    async def clean_up(self) -> None:
        """Remove everything that bears our name; idempotent, also without ``start``."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of helpers and sockets; what is in force stays in force."""
