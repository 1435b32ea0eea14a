"""The agent's end of steering by iptables: from frontends to rules, one helper per family."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import SteeringError
from ...kernel.interfaces import without_ipv6
from ...kernel.one_thread import OneThread
from ...model import Frontend, IPFamily, Protocol
from ..base import (
    REFUSE,
    Bind,
    Steering,
    SteeringFacts,
    Target,
    nothing_applied,
    render_targets,
)
from .process import HelperEnded, HelperProcess
from .rules import NatRule

# Which legacy tables are in use in this network namespace, one a line.
_IN_USE = {
    IPFamily.IPV4: Path("/proc/thread-self/net/ip_tables_names"),
    IPFamily.IPV6: Path("/proc/thread-self/net/ip6_tables_names"),
}


class IptablesSteering(Steering):
    """REDIRECT and DNAT rules in the legacy tables.

    The helper for IPv4 is there from ``start`` on; IPv6's when an IPv6 frontend is wanted, or
    when an earlier run may have left rules. Their network namespace is that of the thread that
    calls the first method.

    Args:
        facts: Of these all are used but the Service ranges; the refuse port must be set.
    """

    name = "iptables"
    bind = Bind.PROXY_PORT
    needs_transparent = True

    def __init__(self, facts: SteeringFacts) -> None:
        self.facts = facts
        self._helpers = {family: HelperProcess(family.value) for family in IPFamily}
        self._applied: dict[IPFamily, dict[Frontend, Target]] = {}
        self._left_behind: set[IPFamily] | None = None
        # One thread: the helpers' sockets block, and no request overtakes another.
        self._thread = OneThread("iptables-steering")

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering."""
        found = await self._thread.run(self._start)
        if not await self._thread.run(lambda: self._ask(IPFamily.IPV4, "checks_sockets")):
            self.unguarded = 'the kernel or the installed iptables has no match "socket"'
        return found

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Part of Steering."""
        asked = dict(wanted)
        await self._thread.run(lambda: self._apply(asked))

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Part of Steering."""
        now, no_more = dict(changed), frozenset(gone) - changed.keys()
        await self._thread.run(lambda: self._change(now, no_more))

    async def render(self) -> str:
        """Part of Steering."""
        return render_targets(await self._thread.run(self._render))

    async def repair(self) -> int:
        """Part of Steering."""
        count = await self._thread.run(self._repair)
        ipv6 = self._applied.get(IPFamily.IPV6, ())
        self.unsteered = await self._thread.run(lambda: without_ipv6(ipv6))
        return count

    async def clean_up(self) -> None:
        """Part of Steering."""
        await self._thread.run(self._clean_up)

    async def close(self) -> None:
        """Part of Steering; waits for the helpers' end."""
        if self._thread.has_begun:
            await self._thread.run(self._close)
            self._thread.close()

    async def labels(self) -> list[str]:
        """Return the labels (:func:`~..names.proxy_label`) of all proxies that left rules here.

        Sorted; empty text for those of a proxy without a name.

        Raises:
            SteeringError: The kernel can't be asked.
        """
        return await self._thread.run(self._labels)

    @property
    def helper_pids(self) -> Mapping[IPFamily, int]:
        """The ids of the helper processes that run."""
        return {f: h.pid for f, h in self._helpers.items() if h.pid is not None}

    @property
    def helper_restarts(self) -> int:
        """Part of Steering."""
        return sum(helper.restarts for helper in self._helpers.values())

    def _start(self) -> dict[Frontend, int]:
        found = {}
        self._left_behind = set()
        for family in IPFamily:
            if family is IPFamily.IPV4 or _may_have_rules(family):
                rules = self._rules(family, "start")
                found.update({_frontend(rule): rule.to_port for rule in rules})
                if rules:
                    self._left_behind.add(family)
                elif family is IPFamily.IPV6:
                    # Others use IPv6's tables; a helper without work needs 50 MiB.
                    self._helpers[family].close()
        return found

    def _apply(self, wanted: dict[Frontend, Target]) -> None:
        if self._left_behind is None:
            self._start()
        by_family: dict[IPFamily, dict[Frontend, Target]] = {family: {} for family in IPFamily}
        for frontend, target in wanted.items():
            by_family[frontend.family][frontend] = target
        before = dict(self._applied)
        try:
            for family, targets in by_family.items():
                if targets or self._is_ours(family):
                    self._send(family, targets)
        except SteeringError:
            for family, targets in list(self._applied.items()):
                if targets is not before.get(family):
                    self._send(family, before.get(family, {}))
            raise

    def _change(self, changed: dict[Frontend, Target], gone: frozenset[Frontend]) -> None:
        if not self._applied:
            raise nothing_applied()
        done: list[tuple[IPFamily, dict[Frontend, Target], list[Frontend]]] = []
        try:
            for family in IPFamily:
                targets = {f: target for f, target in changed.items() if f.family is family}
                before = self._applied.get(family, {})
                leaving = [f for f in gone if f in before]
                if targets or leaving:
                    old = {f: before[f] for f in (*targets, *leaving) if f in before}
                    self._send_change(family, targets, leaving)
                    done.append((family, old, [f for f in targets if f not in old]))
        except SteeringError:
            for family, old, new in done:
                self._send_change(family, old, new)
            raise

    def _send_change(
        self, family: IPFamily, changed: Mapping[Frontend, Target], gone: Collection[Frontend]
    ) -> None:
        """Tell a helper what changes; one that knows of nothing is told everything."""
        before = self._applied.get(family)
        if before is None or self._helpers[family].is_new:
            leaving = frozenset(gone)
            self._send(
                family,
                {f: t for f, t in ((before or {}) | dict(changed)).items() if f not in leaving},
            )
            return
        rules = [self._rule(f, target) for f, target in changed.items()]
        leavers = [self._rule(f, REFUSE).frontend for f in gone]
        try:
            self._ask(family, "change", rules=rules, gone=leavers)
        except HelperEnded:
            # Its successor is told everything.
            self._send_change(family, changed, gone)
            return
        before.update(changed)
        for frontend in gone:
            before.pop(frontend, None)

    def _send(self, family: IPFamily, targets: dict[Frontend, Target]) -> None:
        """Tell a helper what is wanted: the difference, if it knows what was.

        When a helper dies over it, its successor is told everything at once: nobody can say how
        far it got, and what it left is put right before anybody waits for it.
        """
        try:
            self._send_once(family, targets)
        except HelperEnded:
            self._send_once(family, targets)
        self._applied[family] = targets

    def _send_once(self, family: IPFamily, targets: dict[Frontend, Target]) -> None:
        before = self._applied.get(family)
        if before is None or self._helpers[family].is_new:
            rules = [self._rule(frontend, target) for frontend, target in targets.items()]
            self._ask(family, "apply", rules=rules)
            return
        rules = [self._rule(f, target) for f, target in targets.items() if before.get(f) != target]
        gone = [self._rule(f, REFUSE).frontend for f in before.keys() - targets.keys()]
        self._ask(family, "change", rules=rules, gone=gone)

    def _render(self) -> dict[Frontend, Target]:
        targets: dict[Frontend, Target] = {}
        for family in IPFamily:
            if family in self._applied or _may_have_rules(family):
                for rule in self._rules(family, "render"):
                    refused = rule.to_port == self.facts.refuse_port
                    targets[_frontend(rule)] = REFUSE if refused else rule.to_port
        return targets

    def _repair(self) -> int:
        drifted = 0
        for family, targets in self._applied.items():
            if self._helpers[family].is_new:
                # A new helper knows of nothing that it should keep right.
                self._send(family, targets)
            try:
                drifted += self._ask(family, "repair")
            except HelperEnded:
                self._send(family, targets)
        return drifted

    def _clean_up(self) -> None:
        for family in IPFamily:
            if family in self._applied or _may_have_rules(family):
                self._ask(family, "clean_up")
        self._applied = {}
        self._left_behind = None

    def _labels(self) -> list[str]:
        families = [family for family in IPFamily if _may_have_rules(family)]
        return sorted({label for family in families for label in self._ask(family, "labels")})

    def _close(self) -> None:
        for helper in self._helpers.values():
            helper.close()

    def _is_ours(self, family: IPFamily) -> bool:
        left = self._left_behind or ()
        return family is IPFamily.IPV4 or family in self._applied or family in left

    def _rules(self, family: IPFamily, request: str) -> Iterable[NatRule]:
        return [NatRule(*rule) for rule in self._ask(family, request)]

    def _rule(self, frontend: Frontend, target: Target) -> NatRule:
        port = self.facts.refuse_port if target is REFUSE else target
        if not port:
            raise SteeringError(f"cannot refuse {frontend}: no refuse port was given")
        return NatRule(str(frontend.protocol).lower(), frontend.ip, frontend.port, port)

    def _ask(self, family: IPFamily, request: str, **more: Any) -> Any:
        facts = self.facts
        given = [facts.refuse_port, facts.proxy_ports, facts.node_addresses, facts.proxy_name]
        return self._helpers[family].ask({"do": request, "facts": given, **more})


def _frontend(rule: NatRule) -> Frontend:
    return Frontend(rule.ip, rule.port, Protocol(rule.protocol.upper()))


def _may_have_rules(family: IPFamily) -> bool:
    """Return whether the family's nat table is in use, by us or by others."""
    try:
        return "nat" in _IN_USE[family].read_text(encoding="ascii").split()
    except FileNotFoundError:
        return False
    except OSError:
        # Unreadable without a right; the helper will say what is missing.
        return True
