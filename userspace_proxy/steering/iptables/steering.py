"""The agent's side of iptables steering: one helper process per IP family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from ...errors import SteeringError
from ...filters.chains import Tables
from ...filters.following import ALL_NAT
from ...filters.frontends import Translation
from ...kernel.interfaces import without_ipv6
from ...kernel.offers import FOR_IPTABLES_IPV6, LACKS_NOTHING, KernelOffers
from ...model import Frontend, IPFamily, Protocol, Taken
from ..base import Bind, Steering, SteeringFacts
from ..programmer import Affected, Ports, ProgrammedSteering, Programmer
from .helper_process import HelperEnded, HelperProcess, as_rows, from_rows
from .legacy import tables_in_use


class IptablesSteering(ProgrammedSteering["IptablesProgrammer"]):
    """REDIRECT and DNAT rules in the legacy tables.

    The helper for IPv4 runs from ``start`` on. The helper for IPv6 runs only if there are IPv6
    frontends, or if an earlier run has left rules.
    """

    name = "iptables"
    bind = Bind.PROXY_PORT
    needs_transparent = True
    no_kernel_path = MappingProxyType(
        {of: why for of, why in Steering.no_kernel_path.items() if of is not Protocol.TCP}
    )

    def __init__(self, facts: SteeringFacts, kernel: KernelOffers = LACKS_NOTHING) -> None:
        self._helpers = {family: HelperProcess(family.value) for family in IPFamily}
        no_ipv6 = kernel.words(FOR_IPTABLES_IPV6)
        super().__init__(facts, lambda: IptablesProgrammer(facts, self._helpers, no_ipv6))

    def note_legacy(self, tables: Tables) -> None:
        # This proxy's chains accept steered packets before other rules of the table do.
        super().note_legacy(
            {
                table: {
                    name: chain
                    for name, chain in chains.items()
                    if (table.name, chain.hook) != ("filter", "input")
                }
                for table, chains in tables.items()
            }
        )

    async def labels(self) -> list[str]:
        """Return the labels of all proxies with rules here, sorted."""
        return await self._do(IptablesProgrammer.labels)

    @property
    def helper_pids(self) -> Mapping[IPFamily, int]:
        """The process IDs of the running helpers."""
        return {f: h.pid for f, h in self._helpers.items() if h.pid is not None}

    @property
    def helper_restarts(self) -> int:
        return sum(helper.restarts for helper in self._helpers.values())


class IptablesProgrammer(Programmer):
    """The programmer that calls the helpers of both IP families, and closes them.

    Args:
        no_ipv6: The reason why the kernel can't steer IPv6; empty if it can.
    """

    def __init__(
        self, facts: SteeringFacts, helpers: Mapping[IPFamily, HelperProcess], no_ipv6: str
    ) -> None:
        super().__init__()
        self._no_ipv6 = no_ipv6
        self._possible = [IPFamily.IPV4] if no_ipv6 else list(IPFamily)
        self._facts = asdict(facts)
        self._helpers = helpers
        self._families: set[IPFamily] = set()
        """IPv4, and IPv6 if this or an earlier run has rules; empty before :meth:`start`."""
        self._informed: set[IPFamily] = set()
        """The families whose helper has received the desired state."""
        self._unguarded = ""
        self._without_ipv6: dict[Frontend, Taken] = {}

    def unguarded(self) -> str:
        return self._unguarded

    def unsteered(self) -> Mapping[Frontend, str | Taken]:
        if self._no_ipv6:
            return {**self._taken_earlier, **self._left_out()}
        return {**self._taken_earlier, **self._without_ipv6}

    def start(self) -> Ports:
        found = from_rows(self._ask(IPFamily.IPV4, "start"))
        self._families = {IPFamily.IPV4}
        if _may_have_rules(IPFamily.IPV6):
            if left := from_rows(self._ask(IPFamily.IPV6, "start")):
                self._families.add(IPFamily.IPV6)
                found |= left
            else:
                # Only other programs use the IPv6 tables, and an idle helper would take 50 MiB.
                self._helpers[IPFamily.IPV6].close()
        if not self._ask(IPFamily.IPV4, "checks_sockets"):
            self._unguarded = 'the kernel or the installed iptables has no match "socket"'
        return found

    def in_force(self) -> Ports:
        ports: Ports = {}
        for family in self._in_use():
            ports |= from_rows(self._ask(family, "in_force"))
        return ports

    def clean_up(self) -> None:
        for family in self._in_use():
            self._ask(family, "clean_up")
        self._applied = None
        self._families.clear()
        self._informed.clear()

    def close(self) -> None:
        """Terminate the helpers, and wait for them."""
        for helper in self._helpers.values():
            helper.close()
        super().close()

    def labels(self) -> list[str]:
        families = filter(_may_have_rules, IPFamily)
        return sorted({label for family in families for label in self._ask(family, "labels")})

    def _load(self) -> None:
        if not self._families:
            self.start()
        families = self._families | {frontend.family for frontend in self._applied or ()}
        families &= set(self._possible)
        try:
            for family in sorted(families):
                self._send_all(family)
        except SteeringError:
            for family in self._informed:
                self._ask(family, "apply", ports=[])
            self._informed.clear()
            raise

    def _write(self, before: Affected, affected: Affected) -> None:
        for family in self._possible:
            here = {f: port for f, port in affected.items() if f.family is family}
            if here:
                self._send(family, here)

    def _restore(self, affected: Affected, before: Affected) -> None:
        # If the kernel refused a helper's change, the helper has already restored the old state,
        # and sending that state again is harmless.
        here = {f: port for f, port in before.items() if f.family in self._families}
        self._write(affected, here)

    def _repair(self) -> int:
        drifted = 0
        for family in sorted(self._families):
            if not self._is_informed(family):
                self._send_all(family)
            try:
                drifted += self._ask(family, "repair")
            except HelperEnded:
                self._send_all(family)
        self._without_ipv6 = without_ipv6(self._applied or ())
        return drifted

    def _translation_of(self, frontend: Frontend) -> Translation:
        return Translation(ALL_NAT, (self._applied or {}).get(frontend, 0))

    def _left_out(self) -> dict[Frontend, str]:
        why = self._no_ipv6
        ipv6 = (f for f in self._applied or () if f.family is IPFamily.IPV6)
        return {frontend: f"cannot steer {frontend}: {why}" for frontend in ipv6}

    def _is_informed(self, family: IPFamily) -> bool:
        return family in self._informed and not self._helpers[family].is_new

    def _in_use(self) -> list[IPFamily]:
        return [f for f in IPFamily if f in self._informed or _may_have_rules(f)]

    def _send(self, family: IPFamily, affected: Affected) -> None:
        """Send a change to a helper, or the whole state if the helper may lack the old state."""
        if self._is_informed(family):
            try:
                self._ask(family, "change", ports=as_rows(affected))
            except HelperEnded:
                self._informed.discard(family)
            else:
                return
        self._send_all(family)

    def _send_all(self, family: IPFamily) -> None:
        """Send the desired state to a helper, or to its replacement if it exits meanwhile."""
        self._informed.discard(family)
        rows = as_rows({f: p for f, p in (self._applied or {}).items() if f.family is family})
        try:
            self._ask(family, "apply", ports=rows)
        except HelperEnded:
            self._ask(family, "apply", ports=rows)
        self._informed.add(family)
        self._families.add(family)

    def _ask(self, family: IPFamily, request: str, **more: Any) -> Any:
        return self._helpers[family].ask({"do": request, "facts": self._facts, **more})


def _may_have_rules(family: IPFamily) -> bool:
    """Return whether any program uses the nat table of a family; True if that can't be read."""
    try:
        return "nat" in tables_in_use(family)
    except OSError:
        # Permission is denied; the helper will report the missing permission.
        return True
