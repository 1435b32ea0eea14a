"""Runs that steer by routes and a guard, between those that steer by nftables.

    step ─▶ LocalSteering ─▶ routes, guard table ─▶ where clients are led, as of the targets

Source: docs/paths.md ("Local steering"); the docstrings of ``steering.local`` and of
``steering.base``.

Rule 1: where a step has failed, or the process has died, each frontend is as before or as after it.
Rule 2: workers outlive their process, and so do the connections that are open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from typing import Any

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.base import REFUSE, Target
from userspace_proxy.steering.local import LocalSteering

from ...judgements import Judgements
from ..conntrack_entries import Flow, Place
from ..nf_tables_packets import Kind, Outcome
from . import expecting
from . import plan as p
from .node import Machine
from .plan import CLIENTS, FRONTENDS, Client, Step

Targets = Mapping[Frontend, Target]
Call = Callable[[str, Callable[[], Coroutine[Any, Any, Any]]], tuple[Any, bool]]
ORACLES = (
    "local: served or refused", "local: nothing else answers", "local: impostor",
    "local: old flow ends", "local: open connection stays", "local: recovered",
    "local: shown as it is",
)  # fmt: skip
HERE, ELSEWHERE = "here", "elsewhere"
_PROTOCOLS = {"TCP": 6, "UDP": 17}
_CLIENT_PORT, _DAEMONS_PORT = 40_001, 9999


class LocalRuns:
    """What is known of the runs of one plan that steer by ``local``.

    Args:
        call: Runs a step of the product; returns its result, and whether it is without error.
            If the process dies, the next one has begun when it returns.
    """

    def __init__(self, node: Machine, judgements: Judgements, call: Call) -> None:
        self._node = node
        self._judge = judgements
        self._call = call
        self.is_on = False
        """Whether such a run is in force, or something of one may be."""
        self._steering: LocalSteering
        self._applied: Targets = {}
        """What is in force, as far as the product has confirmed it."""
        self._is_applied = False
        """Whether this process has applied anything."""
        self._old: Targets = {}
        self._new: Targets = {}
        self._doubtful: list[Targets] = []
        """What may be in force, in whole or in part, besides."""
        self._lingering: set[Frontend] = set()
        """Those that have left, and may be refused until the next repair."""
        self._refused: set[str] = set()
        """Addresses that the kernel is said to have refused."""
        self._is_drifted = False
        """Whether another program has changed something that the product needn't know yet."""
        self._open: set[Frontend] = set()
        """Those at which connections are open, also of earlier processes."""
        self._may_have_old = False
        """Whether removing flows of earlier runs may have failed."""
        self._turn = 0

    @property
    def connected(self) -> Collection[Frontend]:
        """The frontends with open connections."""
        return self._open

    def take_over(self) -> None:
        """Note that a run begins in place of one that steers by nftables."""
        self.is_on = True
        self._applied, self._doubtful = {}, []

    def begin(self) -> None:
        """Begin a process."""
        node, self._is_applied = self._node, False
        self._old = self._new = self._applied
        self._steering = steering = node.new_local()
        for _ in range(8):
            process = node.process
            found, is_done = self._call("start", steering.start)
            if node.process != process:
                return
            if is_done:
                self._look_at_recovered(found)
                break
        self._look()

    def end(self) -> None:
        """Have the process end orderly."""
        self._call("close", self._steering.close)
        count = len(self._node.kernel.sockets)
        self._judge.check("sockets closed", count <= 1, f"{count} sockets are open")

    def removing(self) -> None:
        """Note that a process begins that is to remove all of it."""
        self._old, self._new = self._applied, {}
        self._open.clear()

    def died(self) -> None:
        """Note that the process has died within a step."""
        self._doubtful += [self._old, self._new]

    def gone(self) -> None:
        """Note that a run of the other steering has removed all of it."""
        self.is_on = False
        self._applied, self._doubtful, self._refused = {}, [], set()
        self._lingering.clear()
        self._open.clear()
        self._is_drifted = False

    @property
    def left(self) -> list[str]:
        """What of such a run is in the kernel."""
        tables = [one.name for one in self._node.own_tables if "/local" in one.name]
        return [*tables, *map(str, self._node.own_routes)]

    def step(self, step: Step) -> None:
        """Carry a step out; what such a run doesn't have is left out."""
        match step.kind:
            case p.APPLY:
                self._apply(_as_local(dict(step.targets)))
            case p.CHANGE:
                self._change(_as_local(dict(step.targets)), step.gone)
            case p.REPAIR:
                self._repair()
            case p.DRIFT:
                self._drift(step)
            case p.CLIENT:
                self._client(step)
            case p.FORGET:
                # In such a run it has no other use.
                self._open.clear()
            case p.COUNT:
                self._show()

    def clean_up(self) -> bool:
        """Have the process remove all of it; return whether it has."""
        process, self._new = self._node.process, {}
        # Its workers have ended them.
        self._open.clear()
        _, is_done = self._call("clean_up", self._steering.clean_up)
        if self._node.process != process:
            return False
        if not is_done:
            self._doubtful += [self._old, {}]
            return False
        self._applied, self._is_applied, self._doubtful = {}, False, []
        self._old, self._refused = {}, set()
        self._lingering.clear()
        self._is_drifted = False
        self._judge.check("nothing is left", not self.left, lambda: f"{self.left} is left")
        return True

    def finish(self) -> None:
        """Judge that all is right soon after nothing fails any more."""
        if not self._is_applied:
            self._apply(self._applied)
        for _ in range(11):
            # As often as a refused route is tried again.
            self._node.now += 1.0
            self._repair()
        refused = self._unsteered()
        self._judge.check("local: served or refused", not refused, f"{refused} isn't routed")
        for _ in CLIENTS:
            self._look()

    def look_between(self) -> None:
        """Judge one address at a moment within a step: no daemon of the node answers at it."""
        routes = self._node.own_routes
        if not routes or self._is_drifted:
            return
        self._turn += 1
        ip = routes[self._turn % len(routes)].ip
        client = next(one for one in CLIENTS if one.version == (6 if ":" in ip else 4))
        outcome = self._verdict(Frontend(ip, _DAEMONS_PORT, Protocol.TCP), client)
        self._judge.check(
            "local: nothing else answers",
            in_words(outcome) != HERE,
            lambda: f"a daemon answers at {ip}",
        )

    def _apply(self, targets: Targets) -> None:
        self._run("apply", lambda: self._steering.apply(targets), targets)

    def _change(self, changed: Targets, gone: tuple[Frontend, ...]) -> None:
        new = {f: t for f, t in self._applied.items() if f not in gone} | dict(changed)
        if self._is_applied:
            self._run("change", lambda: self._steering.change(changed, gone), new)
        else:
            self._apply(new)

    def _run(self, what: str, call: Callable[[], Coroutine[Any, Any, Any]], new: Targets) -> None:
        process, failures = self._node.process, self._node.failures
        self._old, self._new = self._applied, new
        if not self._is_applied and self._is_drifted:
            self._forget_unrouted()
        _, is_done = self._call(what, call)
        if self._node.process == process and is_done and what == "change":
            self._call("forget_stale", self._steering.forget_stale)
        if self._node.process != process:
            return
        self._may_have_old |= not is_done or failures != self._node.failures
        if not is_done:
            self._doubtful += [self._old, new]
            self._old = self._applied
            self._look()
            return
        before = {one for some in (self._old, *self._doubtful) for one in some}
        if not self._is_applied:
            # Of others the new process knows nothing.
            self._lingering &= self._open
        self._lingering |= {one for one in before - new.keys() if _may_linger(one)}
        if self._is_applied:
            self._applied = new
            if self._doubtful:
                # What couldn't be undone is put right by the next repair.
                self._doubtful.append(self._old)
        else:
            self._applied, self._doubtful, self._is_applied = new, [], True
            self._is_drifted = False
        self._old = self._applied
        self._look()

    def _forget_unrouted(self) -> None:
        """Leave out connections whose route another program has deleted between two processes."""
        lost = {one for one in self._open if not self._node.routes.is_local(one.ip)}
        for _ in lost:
            self._judge.excuse("local: open connection stays", "its route was deleted")
        self._open -= lost

    def _repair(self) -> None:
        node, steering = self._node, self._steering
        process, interrupted, failures = node.process, node.routes.interrupted, node.failures
        self._old = self._new = self._applied
        # An event that arrives within this repair may be read by the next one.
        has_late = any(sock.has_late for sock in node.kernel.sockets)
        _, is_done = self._call("repair", steering.repair)
        if node.process != process:
            return
        is_calm = interrupted == node.routes.interrupted and failures == node.failures
        if is_done and is_calm and self._is_applied:
            self._doubtful, self._may_have_old = [], False
            self._is_drifted = self._is_drifted and has_late
            self._lingering &= self._open
        self._look()

    def _show(self) -> None:
        process, failures = self._node.process, self._node.failures
        text, is_done = self._call("render", self._steering.render)
        is_sure = self._is_applied and not self._doubtful and not self._unsteered()
        is_sure = is_sure and not self._is_drifted
        if self._node.process != process or not is_done or not is_sure:
            return
        if failures == self._node.failures:
            wanted, found = expecting.lines_of(self._applied), set(text.splitlines())
            self._judge.check("local: shown as it is", found == wanted, f"{found ^ wanted}")

    def _drift(self, step: Step) -> None:
        """Have another program delete the guard, or a route."""
        node = self._node
        tables = [one for one in node.own_tables if "/local" in one.name]
        if step.name == "delete guard" and tables:
            node.another.delete_table(tables[0])
        elif step.name == "delete route" and node.own_routes:
            node.routes.remove_local(node.own_routes[step.number % len(node.own_routes)])
        else:
            return
        self._is_drifted = True

    def _client(self, step: Step) -> None:
        """Send a packet of a client; TCP connections that are answered stay open."""
        client = CLIENTS[step.client % len(CLIENTS)]
        frontend = FRONTENDS[step.number % len(FRONTENDS)]
        if (":" in frontend.ip) != (client.version == 6):
            return
        flow = _flow(frontend, client, step.port)
        is_first = flow not in self._node.tables.conntrack.entries
        outcome, entry = self._node.packets.send(flow, is_local=client.is_local)
        if is_first:
            self._look_at(frontend, outcome)
        if entry is not None and step.name == "answer":
            entry.answer()
            is_tcp = frontend.protocol is Protocol.TCP
            if is_tcp and in_words(outcome) == HERE and frontend in self._applied:
                self._open.add(frontend)

    def _look(self) -> None:
        """Judge where clients of all frontends are led."""
        self._turn += 1
        for index, frontend in enumerate(FRONTENDS):
            some = [one for one in CLIENTS if (one.version == 6) == (":" in frontend.ip)]
            client = some[(self._turn + index) % len(some)]
            self._look_at(frontend, self._verdict(frontend, client))
            self._look_at_impostor(frontend, client)
        for frontend in () if self._is_drifted else self._open:
            is_routed = self._node.routes.is_local(frontend.ip)
            self._judge.check(
                "local: open connection stays", is_routed, f"{frontend} has lost its route"
            )
        if self._is_applied and not self._doubtful and not self._may_have_old:
            self._look_at_entries()

    def _look_at(self, frontend: Frontend, outcome: Outcome) -> None:
        oracle = "local: served or refused"
        allowed = {*self._possible(frontend)}
        if expecting.leftover(outcome):
            # Another program's rule leads all TCP of IPv4 there, as if the frontend were nowhere.
            allowed |= {ELSEWHERE}
        found = in_words(outcome)
        self._judge.check(oracle, found in allowed, lambda: f"{frontend}: {found}, not {allowed}")

    def _look_at_impostor(self, frontend: Frontend, client: Client) -> None:
        """Judge a frontend at whose port only another program listens."""
        if "socket" in self._node.node.lacks or frontend.ip in p.NODE_ADDRESSES:
            return
        if self._is_drifted:
            return
        self._node.has_impostor = True
        found = in_words(self._verdict(frontend, client))
        self._node.has_impostor = False
        self._judge.check("local: impostor", found != HERE, f"{frontend} leads to another program")

    def _possible(self, frontend: Frontend) -> Iterator[str]:
        """Yield where clients of a frontend may be led."""
        if frontend.ip in self._unsteered():
            yield ELSEWHERE
        for targets in (self._applied, *self._doubtful):
            target = targets.get(frontend)
            if frontend.ip in p.NODE_ADDRESSES:
                yield HERE
            elif target is not None:
                yield expecting.REFUSED if target is REFUSE else HERE
            elif any(one.ip == frontend.ip for one in targets):
                yield expecting.REFUSED
            elif any(one.ip == frontend.ip for one in self._lingering):
                yield from (expecting.REFUSED, ELSEWHERE)
            else:
                yield ELSEWHERE
        if self._is_drifted:
            yield from (HERE, expecting.REFUSED, ELSEWHERE)
        if self._doubtful:
            # Routes and the guard change one after another, and one address has several frontends.
            yield from (expecting.REFUSED, ELSEWHERE)

    def _unsteered(self) -> set[str]:
        """Return the addresses that the kernel is said to have refused, to the last that knows."""
        if not self._is_applied:
            return self._refused
        said = self._steering.unsteered.items()
        found = self._refused = {one.ip for one, why in said if isinstance(why, str)}
        if found:
            self._judge.check(
                "no failure without a reason",
                self._node.routes.refused > 0,
                f"{found} is said to be refused",
            )
        return found

    def _look_at_entries(self) -> None:
        """Judge the flows of earlier runs: those of UDP lead to the listener now."""
        for entry in self._node.tables.conntrack.entries.values():
            frontend = expecting.frontend_of(entry)
            if frontend.protocol is not Protocol.UDP or self._applied.get(frontend) in (
                None,
                REFUSE,
            ):
                continue
            if entry.leads_to.port == expecting.LEFTOVER_PORT:
                continue
            where, flow = entry.leads_to, entry.flow
            self._judge.check(
                "local: old flow ends", where == flow.dialled, f"{flow} leads to {where}"
            )

    def _look_at_recovered(self, found: Mapping[Frontend, int]) -> None:
        if self._doubtful or self._is_drifted:
            return
        wanted = {
            one: one.port
            for one, target in self._applied.items()
            if target is not REFUSE and one.ip not in p.NODE_ADDRESSES
        }
        self._judge.check("local: recovered", found == wanted, f"{found}, not {wanted}")

    def _verdict(self, frontend: Frontend, client: Client) -> Outcome:
        flow = _flow(frontend, client, _CLIENT_PORT)
        return self._node.packets.verdict(flow, is_local=client.is_local)


def in_words(outcome: Outcome) -> str:
    """Return where a packet goes; what another program has led elsewhere isn't steered."""
    if expecting.leftover(outcome):
        return ELSEWHERE
    if outcome.kind is Kind.UNTOUCHED:
        return HERE if outcome.is_here else ELSEWHERE
    return expecting.in_words(outcome)


def _flow(frontend: Frontend, client: Client, port: int) -> Flow:
    protocol = _PROTOCOLS[frontend.protocol.value]
    return Flow(protocol, Place(client.ip, port), Place(frontend.ip, frontend.port))


def _as_local(targets: Targets) -> Targets:
    """Return targets in whose place a listener is bound to each frontend itself."""
    return {one: REFUSE if target is REFUSE else one.port for one, target in targets.items()}


def _may_linger(frontend: Frontend) -> bool:
    return frontend.protocol is Protocol.TCP
