"""The simulated node of one run: kernel, links, another program, and the product's process."""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter
from collections.abc import Coroutine, Mapping
from random import Random
from typing import Any

from userspace_proxy.errors import SteeringError
from userspace_proxy.steering.base import SteeringFacts
from userspace_proxy.steering.local import LocalSteering
from userspace_proxy.steering.nftables import NftablesSteering

from ..netlink_kernel import NetlinkKernel
from ..netlink_routes import LocalRoute, RouteFault, Routes
from ..nf_tables import Fault, NfTables
from ..nf_tables_batch import Event
from ..nf_tables_others import Another
from ..nf_tables_packets import Packets
from ..nf_tables_seam import Sysctls
from ..nf_tables_state import INPUT, Table
from .plan import NODE_ADDRESSES, REFUSE_PORTS, Step, TableNode

OURS = "userspace-proxy"
# Of all proxies; docs/paths.md shows it.
_PROTOCOL = 117
_OTHER_IPS = ("10.96.9.9", "fd00:96::99")
_OTHER_NUMBER = 1 << 24 | 0xABCDEF
ERRNOS = (errno.ENOMEM, errno.EPERM, errno.EBUSY, errno.ENOBUFS)
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# No two processes of two runs share listings.
_PROCESSES = itertools.count(1)


class Died(BaseException):
    """The product's process ends within a system call."""


class Attempts:
    """What the product's transactions of one step did to each of its tables."""

    def __init__(self, may_be_anew: Mapping[str, str] | None = None) -> None:
        self.may_be_anew = may_be_anew or {}
        """Tables whose rules weren't read after they were written, each with the reason."""
        self.redefined: set[str] = set()
        """Those whose rules these transactions have changed."""
        self.unread: set[str] = set()
        """Those of them whose rules couldn't be read then, however often it was tried."""
        self._last: tuple[set[str], int] = set(), 0
        self.refused: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.was_last_refused: dict[str, bool] = {}
        self.deleted: set[str] = set()

    def note(self, tables: set[str], *, is_refused: bool) -> None:
        for name in tables:
            (self.refused if is_refused else self.done)[name] += 1
            self.was_last_refused[name] = is_refused

    def redefine(self, tables: set[str], queries_refused: int) -> None:
        """Note that the last transaction has changed rules of tables; none: that no more follows.

        What it changed is read twice at most, before anything else is written.
        """
        last, before = self._last
        if queries_refused - before > 1:
            self.unread |= last
        self.redefined |= tables
        self._last = tables, queries_refused

    @property
    def is_unknown(self) -> bool:
        """Whether a change may be in force that couldn't be undone."""
        return any(is_refused and self.done[t] for t, is_refused in self.was_last_refused.items())


class Machine:
    """One node."""

    def __init__(self, node: TableNode, seed: int) -> None:
        rng = Random(seed ^ 0x7AB1E)
        self.now = 1000.0
        self.node = node
        self.rng = rng
        self.kernel = NetlinkKernel(lambda: self.now, rng)
        self.kernel.part_messages = node.part_messages
        self.kernel.event_calls = node.event_calls
        self.kernel.listing_cpu_s = node.listing_cpu_s
        self.kernel.send_buffer_bytes = node.send_buffer_bytes
        self.kernel.is_privileged = not node.sends_in_parts
        self.routes = Routes(self.kernel)
        for link in node.links:
            self.routes.put(link)
        self.tables = NfTables(self.kernel, rng)
        self.tables.lacks = set(node.lacks)
        self.tables.elements_per_message = node.elements_per_message
        self.another = Another(self.tables, self.kernel)
        self._others = frozenset[str]()
        """The names of the other proxy's tables."""
        if node.other_proxy is not None:
            self._add_other_proxy(node.other_proxy)
        self.packets = Packets(
            self.tables, self.routes, self.kernel.now, rng.randrange, self._listens
        )
        self.injected = 0
        """How many failures there have been, or are still to come."""
        self.injected_tracking = 0
        """Those of them that connection tracking may meet."""
        self.has_impostor = False
        """Whether other programs have bound all proxy ports."""
        self.sysctls = Sysctls()
        self.process = next(_PROCESSES)
        self.refuse_port = node.refuse_port
        self.steering: NftablesSteering

    def _listens(self, _protocol: int, port: int) -> bool | None:
        if port in REFUSE_PORTS:
            return False if self.has_impostor else None
        return not self.has_impostor

    def _add_other_proxy(self, label: str) -> None:
        """Have another proxy's tables and routes be there."""
        suffix = f"-{label}" if label else ""
        self._others = frozenset(f"{OURS}{kind}{suffix}" for kind in ("", "/paths", "/local"))
        for name in sorted(self._others):
            code = self.another.add_table(name, INPUT, 300, "filter")
            assert not code, os.strerror(code)
        for ip in _OTHER_IPS:
            metric = _OTHER_NUMBER if label else 1024 * (":" in ip)
            self.routes.add_local(LocalRoute(ip, metric, _PROTOCOL))

    def is_ours(self, table: str) -> bool:
        """Return whether a table with this name is the product's, not another proxy's."""
        return table.startswith(OURS) and table not in self._others

    @property
    def own_routes(self) -> list[LocalRoute]:
        """The routes of the product."""
        return [one for one in self.routes.local.values() if one.ip not in _OTHER_IPS]

    def _facts(self) -> SteeringFacts:
        return SteeringFacts(
            refuse_port=self.refuse_port,
            proxy_name=self.node.proxy_name,
            node_addresses=NODE_ADDRESSES,
        )

    def new_steering(self) -> NftablesSteering:
        return NftablesSteering(self._facts())

    def new_local(self) -> LocalSteering:
        return LocalSteering(self._facts())

    def die(self) -> None:
        """End the process: the kernel closes its sockets."""
        for sock in list(self.kernel.sockets):
            while sock.fileno() >= 0:
                sock.close()
        self.process = next(_PROCESSES)

    def do(self, call: Coroutine[Any, Any, Any]) -> tuple[Any, SteeringError | None]:
        """Run a call of the product to its end; return its result, or what it raised."""
        try:
            call.send(None)
        except StopIteration as done:
            return done.value, None
        except SteeringError as exc:
            return None, exc
        raise AssertionError("a call of the steering waits")

    @property
    def own_tables(self) -> list[Table]:
        """The product's tables."""
        tables = self.tables.ruleset.tables.items()
        return [one for place, one in tables if self.is_ours(place[1])]

    def foreign(self) -> list[str]:
        """Return all that isn't the product's as text."""
        routes = [one for one in self.routes.local.values() if one.ip in _OTHER_IPS]
        return [*self.tables.ruleset.text(without=self.is_ours), *map(str, routes)]

    def inject(self, step: Step) -> None:
        """Have the kernel fail in some way."""
        kernel, tables = self.kernel, self.tables
        before, of_tracking = self.faults, self.tracking_faults
        code = ERRNOS[step.number % len(ERRNOS)]
        match step.name:
            case "refusal" | "refused message" | "later refusal":
                tables.faults += _refusals(step.name, step.number, code)
            case "part" | "lost part":
                tables.faults += _faults_of_parts(step.name, step.number, code)
            case "lost answer":
                # The kernel may refuse, too, what the product does about it.
                tables.faults += [Fault(code)] * (step.number % 3 == 0)
                tables.faults.append(Fault(errno.ENOBUFS, answer_is_lost=True))
            case "query":
                tables.query_faults.append(errno.ENOBUFS)
            case "rehash":
                # The product lists elements until two listings are the same.
                tables.rehashes = 1
            case "conntrack":
                tables.conntrack.refusals.append(errno.ENOBUFS)
            case "route":
                self.routes.change_faults += _faults_of_routes(step.number, code)
            case "routes" | "unrest":
                self._disturb_listings(step)
            case "slow":
                kernel.slow_answers += [0.4] * (1 + step.number % 3)
            case "sockets":
                refused = [SHORTAGES[step.number % len(SHORTAGES)]] * (1 + step.number % 3)
                # The next last.
                kernel.next_sockets = refused + [0] * (step.number % 8)
            case "lost events":
                kernel.lost_events += 1 + step.number % 3
            case _:
                raise AssertionError(step.name)
        self.injected += self.faults - before
        self.injected_tracking += self.tracking_faults - of_tracking

    def _disturb_listings(self, step: Step) -> None:
        """Have listings of links, addresses and routes fail."""
        if step.name == "routes":
            self.routes.refuses += 1
        else:
            self.routes.unrest += 10 * (1 + step.number % 5)

    @property
    def failures(self) -> int:
        """How many failures there have been; those that are injected meanwhile aren't yet."""
        return self.injected - self.faults

    @property
    def faults(self) -> int:
        """How many failures are still to come, without what is none for the product."""
        tables = self.tables
        return (
            sum(bool(fault.code) for fault in tables.faults)
            + len(tables.query_faults)
            + len(tables.conntrack.refusals)
            + self.routes.refuses
            + sum(bool(fault.code) for fault in self.routes.change_faults)
            + len(self.kernel.slow_answers)
            + self._refused_sockets
        )

    @property
    def _refused_sockets(self) -> int:
        return sum(map(bool, self.kernel.next_sockets))

    @property
    def tracking_faults(self) -> int:
        """Those that removing conntrack entries may meet."""
        answers = len(self.tables.conntrack.refusals) + len(self.kernel.slow_answers)
        return answers + self._refused_sockets

    def calm(self) -> None:
        """Have nothing fail from now on, and events arrive."""
        self.kernel.calls += self.node.event_calls
        self.tables.faults.clear()
        self.tables.query_faults.clear()
        self.tables.conntrack.refusals.clear()
        self.kernel.slow_answers.clear()
        self.kernel.next_sockets.clear()
        self.routes.refuses = self.tables.rehashes = self.kernel.lost_events = 0
        self.routes.unrest = 0
        self.routes.change_faults.clear()


def _refusals(name: str, number: int, code: int) -> list[Fault]:
    """Return what becomes of the next transactions, the next last."""
    if name == "later refusal":
        # After the kernel path's table, or a part of a change.
        return [Fault(code)] * (3 + number % 2) + [Fault(0)] * (1 + number // 2 % 2)
    return [Fault(code, at_end=name == "refused message")] * (1 + number % 3)


def _faults_of_parts(name: str, number: int, code: int) -> list[Fault]:
    """Return what becomes of the parts of a change, the next last: some are accepted before."""
    accepted = [Fault(0)] * (1 + number // 4 % 14)
    if name == "lost part":
        return [Fault(code)] * (number % 4) + [Fault(errno.ENOBUFS, answer_is_lost=True)] + accepted
    return [Fault(code)] * (1 + number % 4) + accepted


def _faults_of_routes(number: int, code: int) -> list[RouteFault]:
    """Return what becomes of the next changes of routes, the next last."""
    fault = RouteFault(code, answer_is_lost=number % 5 == 0)
    return [fault] * (1 + number % 3) + [RouteFault(0)] * (number // 5 % 4)


def tables_of(events: list[Event]) -> set[str]:
    return {event.table for event in events}
