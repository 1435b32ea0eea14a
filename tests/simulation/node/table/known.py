"""What oracles know of a run of the steering: what happens, and what that leaves uncertain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from userspace_proxy.model import Frontend, SocketAddress
from userspace_proxy.steering.base import KernelTarget, Target

from ...judgements import Judgements
from ..conntrack_entries import Entry
from ..netlink_kernel import NETFILTER
from . import expecting
from .known_links import KnownLinks
from .known_ports import KnownPorts
from .node import Attempts, Machine
from .pictures import Drifted
from .plan import FRONTENDS, Client
from .takers import Taker

Targets = Mapping[Frontend, Target]
Pins = dict[tuple[str, str], dict[SocketAddress, float]]
"""Of a client and a Service: endpoints, each with the end of its time."""


def differing(some: Targets, others: Targets) -> set[Frontend]:
    """Return the frontends whose targets differ."""
    return {one for one in some.keys() | others.keys() if some.get(one) != others.get(one)}


class Known:
    """What is known of one run: what is in force, and what can't be known."""

    def __init__(self, node: Machine, judgements: Judgements) -> None:
        self._node = node
        self._judge = judgements
        self.is_sure = True
        """Whether the tables are as the product wrote them last."""
        self._why_unsure = ""
        self._affected: set[Frontend] = set()  # By a drift, until all was put right.
        self._moved: set[Frontend] = set()  # Those whose targets have changed since such a drift.
        self._led: dict[tuple[Frontend, Client], set[str]] = {}
        """Where clients are led by it."""
        self._last_before = 0  # The last entry before it.
        self._has_lost_structure = False
        """Whether a drift has changed more than elements."""
        self._has_lost_look_ups = False  # Rules that look frontends up may be missing.
        self._doubtful: list[Targets] = []  # Of steps that may be in force in part.
        self._is_in_part = False  # Whether the kernel path's table may be: it was sent in several.
        self._since: list[Targets] = []
        """Targets of all steps since the tables were right."""
        self.links = KnownLinks(node)
        self._rounds_in_doubt = 0  # Repairs that may write a table anew, as events were lost.
        self._were_late = False  # Whether one of a table hadn't arrived when this step began.
        self.has_lost_now = False
        self.has_failed = False  # The kernel has, within the last step.
        self.has_failed_tracking = False  # So has connection tracking, or an answer was late.
        self.may_remove = False
        self._old: Targets = {}
        self._new: Targets = {}
        # What else may be in force after a death, and what might have been until this step.
        self._may_be, self._was = list[Targets](), list[Targets]()
        self._absent: dict[Frontend, int] = {}
        """The last entry when a frontend wasn't steered and no flow was still to be removed."""
        self._late_resets: set[int] = set()
        """Entries of connections that were reset when new ones were led elsewhere already."""
        self._excused: set[int] = set()  # Those of them that were counted as excused.
        self._overdue: set[int] = set()  # Entries that were to be removed by a step that failed.
        self._last: dict[Frontend, Target] = {}  # Of those that are no longer steered.
        self._tried: dict[Frontend, list[tuple[Target, int]]] = {}
        """Where failed steps may have led, each with the last entry before, until flows ended."""
        self._noted: dict[Frontend, list[tuple[Target, int]]] = {}  # Also if a drift hid it since.
        self._hidden: set[int] = set()  # Entries that lead there, which a drift may have hidden.
        self._left: set[Frontend] = set()  # Those that the process before has left.
        self._is_new = False  # Whether there was one, and this one has applied nothing.
        self._unended: set[Frontend] = set()  # Those of them whose flows weren't removed yet.
        self._has_forgotten = False
        """Whether the process can't know what an earlier one led where."""
        self._forgotten: set[Frontend] = set()
        """Frontends of which it isn't known where they led last."""
        self._was_sure = True  # Whether the tables were so when this step began.
        self._pins_are_sure = True
        self._pins: Pins = {}
        self._lost_pins: Pins = {}
        """Those to endpoints that had left their Service: the kernel may have forgotten them."""
        self._counts: Counter[Frontend] = Counter()
        self._reported: Counter[Frontend] = Counter()
        self._surely_counted: Counter[Frontend] = Counter()  # Since reported, and all is right.
        self._unsure_counts: set[Frontend] = set()
        """Those whose connections may not be counted as expected."""
        self.ports = KnownPorts()
        self._turn = 0
        self.taker: Taker | None = None  # Another program's chain that may come first.

    # What happens.

    def begin(self, old: Targets, new: Targets) -> None:
        """Note that a step of the product begins."""
        self._old, self._new, self._was = old, new, []
        self._was_sure = self.is_sure
        sockets = self._node.kernel.sockets
        self._were_late = any(sock.has_late for sock in sockets if sock.proto == NETFILTER)
        self.links.begin()
        if not self.is_sure:
            self._since += [dict(old), dict(new)]
        if self._affected or self._has_lost_structure:
            # What they need may be missing, and is put right later than they change.
            self._moved |= differing(old, new)
        self._node.tables.conntrack.deleted.clear()

    def drifted(self, change: Drifted) -> None:
        """Note that another program has changed the product's tables."""
        if not self._affected and not self._has_lost_structure:
            self._last_before = self._last_entry()
        self._note_led(change)
        if not change.is_of_elements:
            self._has_lost_structure = True
            self._has_lost_look_ups |= change.loses_look_ups
            self._unsure_counts |= set(FRONTENDS)
        # Also those that lead where a step may be in force in part: that is put right first.
        for one in (self._old, *self._doubtful):
            self._moved |= differing(one, self._new)
        self._since += [dict(self._old), dict(self._new)]
        self._unsure_counts |= change.by_elements
        self.still_drifted()
        if self._node.node.event_calls:
            self.lose_events()
        self._may_be.clear()
        # What showed it may be gone.
        entries = self._node.tables.conntrack.entries.values()
        self._hidden |= {one.number for one in entries if self._was_led(one, self._noted)}
        self._tried.clear()
        if self._is_new:
            self._forget_last()
        self._pins_are_sure = False

    def still_drifted(self) -> None:
        """Note that a drift within this step may not be put right."""
        self._lose_certainty("drift")

    def beside(self, change: Drifted) -> None:
        """Note that another program has changed a table of its own, while ours aren't right."""
        self._note_led(change)

    def _note_led(self, change: Drifted) -> None:
        self._affected |= {frontend for frontend, _ in change.led} | change.by_elements
        for place, led in change.led.items():
            self._led.setdefault(place, set()).update(led)

    def _was_led(self, entry: Entry, tried: Mapping[Frontend, list[tuple[Target, int]]]) -> bool:
        """Return whether an entry leads where a step that failed led a frontend for a while."""
        some = tried.get(expecting.frontend_of(entry), ())
        is_udp, port = entry.flow.protocol == 17, self._node.refuse_port
        return is_udp and any(
            entry.number > last and expecting.led_there(entry, target, port)
            for target, last in some
        )

    def _last_entry(self) -> int:
        entries = self._node.tables.conntrack.entries.values()
        return max((entry.number for entry in entries), default=0)

    def doubt(self, why: str) -> None:
        """Note that a step may be in force in part, until a repair."""
        self._lose_certainty(why)
        self._is_in_part |= self._node.node.sends_in_parts
        self._doubtful += [dict(self._old), dict(self._new)]
        for frontend, target in self._new.items():
            if self._old.get(frontend) != target:
                for some in (self._tried, self._noted):
                    some.setdefault(frontend, []).append((target, self._last_entry()))
        if why == "a lost answer":
            # Counters may have begun anew, which doesn't show once they are as high as before.
            self._unsure_counts |= set(FRONTENDS)

    def _lose_certainty(self, why: str) -> None:
        self.is_sure, self._why_unsure = False, why
        # Their counters may be gone.
        self._surely_counted.clear()

    def candidates(self, applied: Targets) -> list[Targets]:
        """Return all targets that may be in force, in whole or in part."""
        some = (*self._doubtful, *self._since, *self._may_be, *self._was)
        return [applied, self._old, self._new, *some]

    def is_in_doubt(self, frontend: Frontend, applied: Targets) -> bool:
        """Return whether it isn't known where a frontend leads."""
        if self.is_sure:
            return False
        if self._is_in_part and isinstance(applied.get(frontend), KernelTarget):
            return True
        some = [one.get(frontend) for one in (applied, *self._doubtful, *self._may_be)]
        return frontend in self._affected | self._moved or any(one != some[0] for one in some)

    def settled(self) -> None:
        """Note that all was written, or repaired."""
        self.is_sure = True
        for some in (self._affected, self._moved, self._led):
            some.clear()
        self._has_lost_structure = self._has_lost_look_ups = self._is_in_part = False
        self._doubtful.clear()
        self._since.clear()
        # One that arrives in a repair counts as a change after what that has written.
        self._rounds_in_doubt = max(self._rounds_in_doubt - 1, int(self._were_late))
        if self._node.kernel.lost_events > 0 or self.has_lost_now:
            self.lose_events()
        self._was, self._may_be = self._may_be, []

    @property
    def has_lost(self) -> bool:
        """Whether the product must doubt that it knows all changes."""
        return self._rounds_in_doubt > 0

    def lose_events(self) -> None:
        """Note that events were lost, or arrive after what follows them."""
        self._rounds_in_doubt = 2

    def round_over(self) -> None:
        """Note that a repair is complete."""
        self.links.round_over()
        self.ports.round_over()

    def round_broken_off(self) -> None:
        """Note that a repair has failed, perhaps after it was all but complete."""
        self.ports.round_broken_off()

    def died(self, attempts: Attempts) -> None:
        """Note that the process has died within a step."""
        if attempts.done:
            self._may_be += [dict(self._old), dict(self._new)]
            self.doubt("death")

    def restarted(self) -> None:
        """Note that a new process begins, which counts from 0, and will replace the tables."""
        self.ports.restarted()
        self._tried.clear()
        self._left = {*self._old, *self._new}
        steered = self._old.keys() & self._new.keys()
        self._absent |= dict.fromkeys(set(FRONTENDS) - steered, self._last_entry())
        for frontend in self._unended:
            # The process alone knew that their flows were to be removed.
            self._last.pop(frontend, None)
        self._unended.clear()
        if not self.is_sure:
            self._forget_last()
        self._is_new = True
        self._forget_counts()
        # Until then the kernel leads clients by them.
        for place, pins in self._pins.items():
            self._lost_pins.setdefault(place, {}).update(pins)
        self._pins.clear()
        self._unsure_counts.clear()

    def _forget_last(self) -> None:
        """Note that what showed a new process where clients were led may be gone."""
        self._last.clear()
        self._has_forgotten = True
        self.ports.forget()
        self._absent = dict.fromkeys(FRONTENDS, self._last_entry())

    def forgotten(self) -> None:
        """Note that nothing is steered any more."""
        self._tried.clear()
        self._noted.clear()
        self._absent = dict.fromkeys(FRONTENDS, self._last_entry())
        self._may_be.clear()
        if not self.is_sure:
            # Another program may have deleted what showed where clients were led.
            self._last.clear()
        self.ports.forget()
        self._forget_counts()
        self._pins.clear()
        self._lost_pins.clear()

    def begin_counts(self) -> None:
        """Note that the process has written its tables for the first time, which are empty."""
        self._is_new = False
        self._forget_counts()
        self._lost_pins.clear()

    def _forget_counts(self) -> None:
        for some in (self._counts, self._reported, self._surely_counted):
            some.clear()
