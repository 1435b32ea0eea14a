"""Shows whether rules of kube-proxy are beside this proxy's, as after its removal.

``check`` says which of them win; here only that there are some, for a reader of all nodes.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SteeringError
from ...facts import StatusFacts
from ...filters.kube_proxy import find_kube_proxy, read_links
from ...filters.reading import NftReader
from ...kernel.one_thread import OneThread
from ...log_fields import FieldLogger
from ...steering.iptables import read_legacy
from ...steering.names import is_own_table
from ..rounds.component import Component
from ..rounds.tasks import Supervisor, pause

_log = FieldLogger("userspace_proxy.agent")

# A table of 100,000 legacy rules takes a second.
LOOK_EVERY_S = 300.0


class KubeProxyWatch(Component):
    """What kube-proxy has in the kernel.

    Args:
        read: Returns where; blocks.
    """

    def __init__(self, read: Callable[[], tuple[str, ...]] | None = None) -> None:
        self._read = read or read_kube_proxy
        self._found: tuple[str, ...] = ()
        self._thread = OneThread("kube-proxy's rules")

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("kube-proxy's rules", self.run)

    def show(self, facts: StatusFacts) -> None:
        facts.kube_proxy = self._found

    async def run(self) -> None:
        """Look at once and every five minutes, for ever."""
        while True:
            await self.look()
            await pause(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once; what can't be read keeps the last result."""
        try:
            self._found = await self._thread.run(self._read)
        except (SteeringError, OSError) as exc:
            _log.debug("cannot look for kube-proxy's rules: %(cause)s", extra={"cause": str(exc)})

    async def close(self) -> None:
        """End the thread; idempotent."""
        self._thread.close()


def read_kube_proxy() -> tuple[str, ...]:
    """Return where kube-proxy's rules are in this thread's network namespace.

    Raises:
        SteeringError: The privilege to read rules is missing.
    """
    reader = NftReader(is_own_table)
    try:
        nft = reader.chains()
    finally:
        reader.close()
    try:
        legacy = read_legacy("nat")
    except SteeringError as exc:
        # Most likely a node with only nftables lacks the program that prints legacy tables.
        _log.debug("cannot read legacy tables: %(cause)s", extra={"cause": str(exc)})
        legacy = {}
    return find_kube_proxy(nft, legacy, read_links())
