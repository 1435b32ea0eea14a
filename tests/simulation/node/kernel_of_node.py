"""The kernel of a node: its links, its rules, and the other programs that change them.

    client ──▶ rules ──▶ a port of the node, and the socket bound to it
                     └─▶ an endpoint, which the client reaches without the proxy

Rule 1: a process's death undoes an incomplete transaction, but no completed write.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from random import Random

from ..machine.conntrack_entries import Flow, Place
from ..machine.machine import Machine, Process
from ..machine.netlink_kernel import NetlinkKernel
from ..machine.netlink_routes import Link, Routes
from ..machine.netlink_sockets import NetlinkSocket
from ..machine.nf_tables import Fault, NfTables
from ..machine.nf_tables_batch import Event
from ..machine.nf_tables_others import Another, drop, translate_all
from ..machine.nf_tables_packets import Kind, Outcome, Packets
from ..machine.nf_tables_seam import Sysctls
from ..machine.nf_tables_state import PREROUTING, Table
from ..network import Address
from .claims import Dialled
from .drifting import FOREIGN, LEFTOVER_PORT, drift
from .families import is_six, six

OURS = "userspace-proxy"
_OTHERS = "firewall"
"""The name of another program's table."""
PROTOCOLS = {"TCP": 6, "UDP": 17}
_UPLINK, _PODS = 2, 3
_POD_LINK = Link(_PODS, "cni0", "bridge", addresses=("10.2.0.254/24", six("10.2.0.254/24")))
# More transactions than any run makes.
_ALL = 10_000
_DRAWS = range(12)
_CLIENT_PORT = 19_999
_ERRORS = errno.ENOMEM, errno.EPERM, errno.EBUSY, errno.ENOBUFS
FAILURES = (
    "last message", "later transaction", "lost answer", "query", "rehash", "conntrack", "listing",
    "unrest", "sockets", "lost events",
)  # fmt: skip
_TAKER = "taker"
# Hooks that precede the product's for clients from outside; nat chains at -200 are refused.
_TAKERS = (("nat", PREROUTING, -199), ("nat", PREROUTING, -112), ("filter", PREROUTING, -150))
# Numbers the runs. It is part of each process number, so that processes of different runs never
# share a listing.
_RUNS = itertools.count(1)


class NodeKernel:
    """The rules and links of one node.

    Args:
        addresses: The node's addresses.
    """

    def __init__(self, machine: Machine, seed: int, addresses: tuple[str, ...]) -> None:
        rng = Random(f"{seed}: kernel")
        self._machine = machine
        self.netlink = NetlinkKernel(machine.timeline.clock, rng)
        self.netlink.between = self._enter
        self.netlink.opened = self._note_socket
        self.routes = Routes(self.netlink)
        self.tables = NfTables(self.netlink, rng)
        self.netlink.part_messages = rng.choice([2, 30])
        self.tables.elements_per_message = rng.choice([1, 3])
        self.tables.changed, self.tables.refused = self._committed, self._refused
        self.another = Another(self.tables, self.netlink)
        self.packets = Packets(
            self.tables, self.routes, machine.timeline.clock, rng.randrange, self._listens
        )
        self.sysctls = Sysctls()
        self.version = 0
        """The number of changes of the rules."""
        self.drifted: set[str] = set()
        """The product's tables that another program changed since the product wrote them."""
        self.refused: Callable[[int], object] = lambda _code: None
        """Called with the error of a refused transaction; 0 if the plan requested the refusal."""
        self._run = next(_RUNS)
        self._sockets: dict[NetlinkSocket, Process] = {}
        self.routes.put(_POD_LINK)
        self._uplink = Link(_UPLINK, "eth0", has_gateway=True)
        self.move(addresses)
        self.another.add_table(_OTHERS, PREROUTING, 300, "filter")
        self.foreign = self._foreign()
        """The tables of other programs, as text."""

    def _enter(self) -> None:
        process = self._machine.current
        if process is not None:
            process.kernel.enter("netlink")

    def _note_socket(self, sock: NetlinkSocket) -> None:
        if self._machine.current is not None:
            self._sockets[sock] = self._machine.current

    def process_number(self) -> int:
        """Return a number for the current process that is unique over all runs."""
        return self._run << 32 | self._machine.kernel.getpid()

    def dying(self, process: Process) -> None:
        """Close the sockets of a dying process."""
        for sock in [sock for sock, owner in self._sockets.items() if owner is process]:
            del self._sockets[sock]
            while sock.fileno() >= 0:
                sock.close()

    def forget(self) -> None:
        """Release the objects of a finished run: listings would keep their sockets open."""
        self.netlink.forget_all()

    def open_sockets(self) -> int:
        """Return the number of open netlink sockets."""
        return sum(sock.fileno() >= 0 for sock in self._sockets)

    def _listens(self, protocol: int, number: int) -> bool | None:
        """Return whether the socket on a port is the product's; None if there is none.

        Pods in the host network also listen here.
        """
        machine, is_tcp = self._machine, protocol == PROTOCOLS["TCP"]
        for port in machine.ports:
            takes_clients = port.is_listening if port.is_tcp else not port.is_deaf
            if port.port == number and port.is_tcp is is_tcp and takes_clients:
                return True
        has_other = any(at[1] == number and tcp is is_tcp for at, tcp in machine.others)
        has_other |= any(at[1] == number and self._is_local(at[0]) for at in machine.hosts)
        return False if has_other else None

    def move(self, addresses: tuple[str, ...]) -> None:
        """Give the node other addresses."""
        own = [ip for ip in addresses if ip not in ("127.0.0.1", "::1")]
        prefixed = tuple(f"{ip}/{112 if is_six(ip) else 16}" for ip in own)
        self._uplink = replace(self._uplink, addresses=prefixed)
        self.routes.put(self._uplink)

    def refuse(self, times: int = _ALL) -> None:
        """Refuse the product's next transactions."""
        self.tables.faults += [Fault(errno.ENOMEM)] * times

    def take_again(self) -> None:
        """Stop refusing transactions."""
        self.tables.faults.clear()

    def fail(self, how: str, number: int) -> None:
        """Make the kernel fail in one of several ways.

        Args:
            how: One of :data:`FAILURES`.
            number: Selects the number of failures, and the error.
        """
        code, times = _ERRORS[number % len(_ERRORS)], 1 + number % 3
        if how == "last message":
            self.tables.faults += [Fault(code, at_end=True)] * times
        elif how == "later transaction":
            self.tables.faults += [Fault(code)] * times + [Fault(0)] * (1 + number // 2 % 2)
        elif how == "lost answer":
            self.tables.faults.append(Fault(errno.ENOBUFS, answer_is_lost=True))
        elif how == "query":
            self.tables.query_faults += [errno.ENOBUFS] * times
        elif how == "rehash":
            # The product repeats a listing of elements until two of them are equal.
            self.tables.rehashes = 1
        elif how == "conntrack":
            self.tables.conntrack.refusals += [errno.ENOBUFS] * times
        elif how == "listing":
            self.routes.refuses += times
        elif how == "unrest":
            self.routes.unrest += 10 * times
        elif how == "sockets":
            self.netlink.next_sockets = [errno.EMFILE] * times + [0] * (number % 8)
        else:
            self.netlink.lost_events += times

    def stop_faults(self) -> None:
        """Stop all faults."""
        self.take_again()
        self.give_back()
        self.tables.query_faults.clear()
        self.tables.conntrack.refusals.clear()
        self.netlink.next_sockets.clear()
        self.routes.refuses = self.tables.rehashes = self.netlink.lost_events = 0
        self.routes.unrest = 0

    def drift(self, name: str, number: int) -> None:
        """Let another program change the product's tables or other tables."""
        self.another.note_chains()
        others = [one for one in self._tables() if not one.name.startswith((OURS, _OTHERS))]
        drift(name, number, self.another, self.own_tables, others)
        if name in FOREIGN or name == "flush ruleset":
            self.foreign = self._foreign()
        self.version += 1

    def take(self, number: int) -> None:
        """Add a chain of another program that takes clients before the product's chains."""
        kind, hook, priority = _TAKERS[number % len(_TAKERS)]
        rule = drop() if kind == "filter" else translate_all("10.1.0.1", LEFTOVER_PORT)
        self.another.add_table(_TAKER, hook, priority, kind, rule)
        self.foreign = self._foreign()

    def give_back(self) -> None:
        """Remove the chain that :meth:`take` has added."""
        for table in [one for one in self._tables() if one.name == _TAKER]:
            self.another.delete_table(table)
        self.foreign = self._foreign()

    @property
    def has_taker(self) -> bool:
        """Whether another program takes the clients of all TCP Services on IPv4."""
        return any(one.name == _TAKER for one in self._tables())

    def _committed(self, port: int, events: list[Event]) -> None:
        self.version += 1
        tables = {event.table for event in events if event.table.startswith(OURS)}
        self.drifted = self.drifted | tables if port == self.another.port else self.drifted - tables

    def _refused(self, port: int, _tables: set[str], code: int) -> None:
        if port != self.another.port:
            self.refused(code)

    def send(self, client: Address, to: Address, *, is_tcp: bool) -> Outcome:
        """Send a client's packet; return its outcome."""
        flow = Flow(PROTOCOLS["TCP" if is_tcp else "UDP"], Place(*client), Place(*to))
        outcome, entry = self.packets.send(flow, is_local=self._is_local(client[0]))
        if entry is not None and outcome.kind is Kind.TO_ENDPOINT:
            entry.answer()
        return self._as_of_endpoint(outcome)

    def answered(self, client: Address, to: Address) -> None:
        """Record that a listener of this node, whose filter admits a client, answers it."""
        flow = Flow(PROTOCOLS["TCP"], Place(*client), Place(*to))
        if (entry := self.tables.conntrack.entries.get(flow)) is not None:
            entry.answer()

    def _as_of_endpoint(self, outcome: Outcome) -> Outcome:
        """Return the outcome, where a pod in the host network counts as an endpoint."""
        place = outcome.place
        is_pod = place is not None and (place.ip, place.port) in self._machine.hosts
        is_here = outcome.kind is Kind.TO_PORT and is_pod
        return outcome._replace(kind=Kind.TO_ENDPOINT) if is_here else outcome

    def verdict(self, ip: str, at: Dialled, draw: int = 0) -> Outcome:
        """Return the destination of a new client of an address; ``draw`` selects an endpoint."""
        flow = Flow(PROTOCOLS[at[2]], Place(ip, _CLIENT_PORT), Place(*at[:2]))
        outcome = self.packets.verdict(
            flow, is_local=self._is_local(ip), draw=lambda most: draw % most
        )
        return self._as_of_endpoint(outcome)

    def led_to(self, ip: str, at: Dialled) -> set[tuple[str, int]]:
        """Return all endpoints to which the kernel may send new clients of an address."""
        outcomes = (self.verdict(ip, at, draw) for draw in _DRAWS)
        return {
            (one.place.ip, one.place.port)
            for one in outcomes
            if one.kind is Kind.TO_ENDPOINT and one.place is not None
        }

    def is_led(self, ip: str, at: Dialled) -> bool:
        """Return whether the product's rules decide on the destination of an address's clients."""
        outcome = self.verdict(ip, at)
        if outcome.place is not None and outcome.place.port == LEFTOVER_PORT:
            return False
        # The network stack refuses ports without a socket, so only another target shows a rule.
        is_by_stack = outcome.kind is Kind.REFUSED and outcome.place is not None
        is_redirected = is_by_stack and outcome.place != Place(*at[:2])
        return outcome.kind is not Kind.UNTOUCHED and (not is_by_stack or is_redirected)

    def _is_local(self, ip: str) -> bool:
        return self.routes.is_local(ip)

    def _tables(self) -> list[Table]:
        return list(self.tables.ruleset.tables.values())

    @property
    def own_tables(self) -> list[Table]:
        """The product's tables."""
        return [one for one in self._tables() if one.name.startswith(OURS)]

    def has_rules(self) -> bool:
        """Return whether the product has any rules."""
        return bool(self.own_tables)

    def foreign_now(self) -> list[str]:
        """Return the current tables of other programs, like :attr:`foreign`."""
        return self._foreign()

    def _foreign(self) -> list[str]:
        return self.tables.ruleset.text(without=lambda name: name.startswith(OURS))


def words_of(code: int) -> str:
    """Return the text of an error."""
    return os.strerror(code)
