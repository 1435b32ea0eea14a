"""Watches for firewalls of other programs that drop what is steered to this proxy.

What is let in by our table may still be dropped by another one, and that can't be overruled: so
the chain and the rule that helps are named, as by ``check``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import SteeringError
from ..steering import OneThread
from ..steering.others import Firewall, find_firewalls, read_input_chains, read_legacy
from .tasks import pause

_log = logging.getLogger("userspace_proxy.agent")

# A look takes some 50 ms, and seconds where there are 100,000 rules.
LOOK_EVERY_S = 60.0


class FirewallWatch:
    """The firewalls in the way of one proxy.

    Args:
        steering: The name of its steering.
        proxy_ports: First and last.
        read: Returns the firewalls that there are; blocks.
    """

    def __init__(
        self,
        steering: str,
        proxy_ports: tuple[int, int],
        *,
        read: Callable[[], list[Firewall]] | None = None,
    ) -> None:
        self._read = read or (lambda: read_firewalls(steering, proxy_ports))
        self._thread = OneThread("firewalls")
        self.found: tuple[Firewall, ...] = ()
        """As of the last look."""

    async def run(self) -> None:
        """Look at once, and then each minute, for ever."""
        while True:
            await self.look()
            await pause(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once; what is new or gone is logged."""
        try:
            found = tuple(await self._thread.run(self._read))
        except (SteeringError, OSError) as exc:
            _log.debug("cannot look for firewalls", extra={"cause": str(exc)})
            return
        before, self.found = self.found, found
        for firewall in found:
            if firewall not in before:
                _log.warning(
                    "a firewall may drop packets to Services",
                    extra={
                        "chain": firewall.chain,
                        "cause": firewall.why,
                        "remedy": firewall.way_out,
                    },
                )
        if before and not found:
            _log.info("firewalls no longer drop packets to Services")

    def close(self) -> None:
        """Let the thread end; idempotent."""
        self._thread.close()


def read_firewalls(steering: str, proxy_ports: tuple[int, int]) -> list[Firewall]:
    """Read the kernel of this thread's network namespace.

    Raises:
        SteeringError: The right to ask is missing.
    """
    nft = read_input_chains()
    try:
        legacy = read_legacy("filter")
    except SteeringError as exc:
        # Most likely a node with nftables alone lacks the program that prints legacy tables.
        _log.debug("cannot look for firewalls in legacy tables", extra={"cause": str(exc)})
        legacy = {}
    return find_firewalls(nft, legacy, steering, proxy_ports)
