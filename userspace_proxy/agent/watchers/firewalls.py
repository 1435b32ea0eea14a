"""Watches other programs' rules: firewalls that drop steered packets, and rules of kube-proxy.

Another table may drop packets that this proxy's table accepts. Such a table is reported with a rule
that solves the problem. kube-proxy's rules may coexist with this proxy's rules, for example after
its removal. ``check`` reports which rules take precedence, this watcher only their existence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from ...clocks import Clocks
from ...errors import SteeringError
from ...facts import FirewallFacts, PodRuleFacts, StatusFacts
from ...filters.chains import Tables
from ...filters.endpoints import find_forward_firewalls, find_pod_rules
from ...filters.following import WAYS
from ...filters.kube_proxy import find_kube_proxy
from ...filters.node import Firewall, find_firewalls
from ...filters.reading import read_generation
from ...kernel.interfaces import is_local
from ...kernel.one_thread import OneThread
from ...log_fields import FieldLogger
from ...logged_condition import LoggedCondition
from ...model import IPFamily, Protocol, SocketAddress, Taken
from ...pacing import Pacing
from ...steering.kernel_view import KernelView, read_kernel
from ..rounds.component import Component
from ..rounds.tasks import Supervisor, pause

_log = FieldLogger("userspace_proxy.agent")

LOOK_EVERY_S = 60.0
# The interval of checks of nftables' generation number; a check costs 30 µs.
_CHECK_EVERY_S = 0.5
# The share of a CPU that reading firewall rules may take: one reading takes about 10 ms, or seconds
# with 100,000 rules, and each change by this proxy itself also causes a reading.
_SHARE = 0.02
# The interval for the legacy ``nat`` table, which takes seconds to read with 100,000 rules.
_NAT_EVERY_S = 300.0


class FirewallWatch(Component):
    """Watches other programs' rules on one proxy's node.

    Args:
        proxy_ports: The first and last proxy port.
        is_sole: Whether no kube-proxy serves other Services.
        read: Returns the rules; blocks.
        generation: Returns a number that grows with each change of nftables; blocks.
        note_legacy: Called with the legacy tables, whenever the filtering ones have been read.
    """

    def __init__(
        self,
        steering: str,
        proxy_ports: tuple[int, int],
        *,
        is_sole: bool = False,
        read: Callable[..., KernelView] = read_kernel,
        generation: Callable[[], int] = read_generation,
        note_legacy: Callable[[Tables], None] = lambda _tables: None,
    ) -> None:
        self._steering = steering, proxy_ports
        self._is_sole = is_sole
        self._read = read
        self._generation = generation
        self._note_legacy = note_legacy
        self._seen = -1
        self._latest_s = self._nat_s = 0.0
        self._pacing = Pacing(_SHARE, longest_s=LOOK_EVERY_S)
        self._kube_proxy: tuple[str, ...] = ()
        self._nat: Tables = {}
        self._pod_rules: Mapping[str, Taken] = {}
        self._thread = OneThread("firewalls")
        self._condition = LoggedCondition[Firewall](
            _log,
            "chain %(chain)s drops packets of Services: %(cause)s",
            "firewalls no longer drop packets of Services",
            fields=lambda f: {"chain": f.chain, "cause": f.why, "remedy": f.hint},
        )

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("firewalls", self.run)

    def show(self, facts: StatusFacts) -> None:
        facts.firewalls = [
            FirewallFacts(
                f.chain,
                f.why,
                f.hint,
                "" if f.family is None else str(f.family),
                f.is_of_answers,
                f.protocol or "",
            )
            for f in self._condition.now
            if f.is_for_all
        ]
        facts.dropped = _by_family(self._condition.now)
        facts.kube_proxy = self._kube_proxy
        facts.pod_rules = [
            PodRuleFacts(ip, one.what, one.hint) for ip, one in self._pod_rules.items()
        ]

    async def run(self) -> None:
        """Read the rules now, after each change of nftables and every minute, until cancelled."""
        while True:
            await self.look_if_due(Clocks.monotonic())
            await pause(_CHECK_EVERY_S)

    async def look_if_due(self, now: float) -> None:
        """Read the rules after a minute or a change, using at most 2 % of a CPU."""
        if now < self._pacing.due:
            return
        generation = await self._thread.run(self._generation)
        if generation == self._seen and now < self._latest_s:
            return
        self._seen = generation
        began = Clocks.monotonic()
        await self.look()
        self._latest_s = now + LOOK_EVERY_S
        self._pacing.note(now, now + Clocks.monotonic() - began)

    async def look(self) -> None:
        """Read the rules once; log when firewalls that drop packets appear or disappear."""
        try:
            self._condition.set(*await self._thread.run(self._find))
        except (SteeringError, OSError) as exc:
            _log.debug("cannot check for firewalls: %(cause)s", extra={"cause": str(exc)})

    def _find(self) -> list[Firewall]:
        now = Clocks.monotonic()
        has_nat = self._is_sole and now >= self._nat_s
        kernel = _read(partial(self._read, *WAYS, "forward", has_nat=has_nat))
        if has_nat:
            self._nat_s = now + _NAT_EVERY_S
            self._nat = kernel.legacy_nat
            self._kube_proxy = find_kube_proxy(kernel.nft, self._nat, kernel.links)
        tables = kernel.nft, kernel.legacy_filter
        self._note_legacy({**kernel.legacy_filter, **self._nat})
        self._pod_rules = find_pod_rules(*tables, kernel.clients)
        return find_firewalls(*tables, *self._steering, kernel.clients)

    async def close(self) -> None:
        self._thread.close()


def _by_family(found: Collection[Firewall]) -> Mapping[str, Taken]:
    """Return, by family and protocol, a chain that drops Services' packets, preferably all."""
    taken: dict[str, Taken] = {}
    for one in sorted(found, key=lambda one: not one.is_for_all):
        # The node's problem states why a chain drops all packets.
        why = "" if one.is_for_all else f": {one.why}"
        what = f"chain {one.chain} of another program drops packets of Services{why}"
        for family in IPFamily if one.family is None else (one.family,):
            for protocol in Protocol if one.protocol is None else (one.protocol,):
                by = Taken(what, one.hint, one.chain, is_certain=False)
                taken.setdefault(f"{family}/{protocol}", by)
    return taken


def read_forward_rules() -> Callable[[SocketAddress, Protocol], Firewall | None]:
    """Read the rules for forwarded packets, and return a function that finds a dropping chain.

    The function returns None unless a chain certainly drops packets forwarded to an endpoint, or
    the endpoint's answers. Reading blocks.

    Raises:
        SteeringError: The rules of nftables can't be read; the message contains the cause.
    """
    kernel = _read(partial(read_kernel, "forward", has_nat=False))
    tables, links = (kernel.nft, kernel.legacy_filter), kernel.clients

    def find(endpoint: SocketAddress, protocol: Protocol) -> Firewall | None:
        # Packets to this node's own addresses aren't forwarded, so no forward chain drops them.
        is_here = is_local(endpoint.ip)
        found = () if is_here else find_forward_firewalls(*tables, endpoint, protocol, links)
        return next(iter(found), None)

    return find


def _read(read: Callable[[], KernelView]) -> KernelView:
    kernel = read()
    for cause in kernel.unread:
        _log.debug("cannot read all rules of other programs: %(cause)s", extra={"cause": cause})
    if not kernel.is_nft_read:
        raise SteeringError(kernel.unread[0])
    return kernel
