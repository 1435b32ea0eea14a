"""Watches for firewalls of other programs that drop packets steered to this proxy.

Another table may drop what this proxy's accepts. It is reported with a rule that solves it.
"""

from __future__ import annotations

from collections.abc import Callable

from ...clocks import Clocks
from ...errors import SteeringError
from ...facts import FirewallFacts, StatusFacts
from ...filters.chains import Tables
from ...filters.endpoints import find_forward_firewalls
from ...filters.node import Firewall, find_firewalls
from ...filters.pod_links import read_client_links
from ...filters.reading import read_chains, read_generation
from ...kernel.interfaces import is_local
from ...kernel.one_thread import OneThread
from ...log_fields import FieldLogger
from ...logged_condition import LoggedCondition
from ...model import Protocol, SocketAddress
from ...steering.iptables import FILTERING, read_legacy
from ...steering.names import is_own_table
from ..rounds.component import Component
from ..rounds.tasks import Supervisor, pause

_log = FieldLogger("userspace_proxy.agent")

LOOK_EVERY_S = 60.0
# Nftables has a number that grows with each change, and reading it costs 30 µs.
_CHECK_EVERY_S = 0.5
# Reading takes some 10 ms, and seconds if there are 100,000 rules. Changes by this program count.
_SHARE = 0.02


class FirewallWatch(Component):
    """The firewalls that drop packets of one proxy.

    Args:
        steering: The name of its steering.
        proxy_ports: First and last.
        read: Returns the firewalls; blocks.
        generation: Returns a number that grows with each change of nftables; blocks.
    """

    def __init__(
        self,
        steering: str,
        proxy_ports: tuple[int, int],
        *,
        read: Callable[[], list[Firewall]] | None = None,
        generation: Callable[[], int] = read_generation,
    ) -> None:
        self._read = read or (lambda: read_firewalls(steering, proxy_ports))
        self._generation = generation
        self._seen = -1
        self._next_s = self._latest_s = 0.0
        self._thread = OneThread("firewalls")
        self._condition = LoggedCondition[Firewall](
            _log,
            "a firewall may drop packets to Services: %(chain)s: %(cause)s",
            "firewalls no longer drop packets to Services",
            fields=lambda f: {"chain": f.chain, "cause": f.why, "remedy": f.hint},
        )

    @property
    def found(self) -> tuple[Firewall, ...]:
        """As last read."""
        return self._condition.now

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("firewalls", self.run)

    def show(self, facts: StatusFacts) -> None:
        facts.firewalls = [
            FirewallFacts(f.chain, f.why, f.hint, "" if f.family is None else str(f.family))
            for f in self.found
        ]

    async def run(self) -> None:
        """Read at once, after changes of nftables and each minute, for ever."""
        while True:
            await self.look_if_due(Clocks.monotonic())
            await pause(_CHECK_EVERY_S)

    async def look_if_due(self, now: float) -> None:
        """Read if a minute has passed, or after a change, as long as that uses 2 % of a CPU."""
        if now < self._next_s:
            return
        generation = await self._thread.run(self._generation)
        if generation == self._seen and now < self._latest_s:
            return
        self._seen = generation
        began = Clocks.monotonic()
        await self.look()
        cost_s = Clocks.monotonic() - began
        self._latest_s = now + LOOK_EVERY_S
        self._next_s = min(now + cost_s / _SHARE, self._latest_s)

    async def look(self) -> None:
        """Read once, and log what is new or gone."""
        try:
            self._condition.set(*await self._thread.run(self._read))
        except (SteeringError, OSError) as exc:
            _log.debug("cannot look for firewalls: %(cause)s", extra={"cause": str(exc)})

    async def close(self) -> None:
        """End the thread; idempotent."""
        self._thread.close()


def read_firewalls(steering: str, proxy_ports: tuple[int, int]) -> list[Firewall]:
    """Return the firewalls of this thread's network namespace.

    Raises:
        SteeringError: The privilege to read rules is missing.
    """
    return find_firewalls(*_read_tables("input"), steering, proxy_ports, read_client_links())


def read_forward_rules() -> Callable[[SocketAddress, Protocol], Firewall | None]:
    """Read the rules for forwarded packets, and return what finds the chain that drops some.

    None if none certainly drops those that are forwarded to an endpoint, or its answers. Reading
    blocks.

    Raises:
        SteeringError: As for :func:`read_firewalls`.
    """
    tables, links = _read_tables("forward"), read_client_links()

    def find(endpoint: SocketAddress, protocol: Protocol) -> Firewall | None:
        # What is translated to this node isn't forwarded.
        is_here = is_local(endpoint.ip)
        found = () if is_here else find_forward_firewalls(*tables, endpoint, protocol, links)
        return min(found, key=lambda one: not one.is_for_all, default=None)

    return find


def _read_tables(hook: str) -> tuple[Tables, Tables]:
    nft = read_chains(is_own_table, hook)
    try:
        return nft, read_legacy(*FILTERING)
    except SteeringError as exc:
        # Most likely a node with only nftables lacks the program that prints legacy tables.
        _log.debug(
            "cannot look for firewalls in legacy tables: %(cause)s", extra={"cause": str(exc)}
        )
        return nft, {}
