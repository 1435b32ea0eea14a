"""What oracles know of a run of the steering: what happens, and what that leaves uncertain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from userspace_proxy.model import Frontend, SocketAddress
from userspace_proxy.steering.base import Target

from ...judgements import Judgements
from .node import Attempts, Machine
from .plan import FRONTENDS

Targets = Mapping[Frontend, Target]
UNKNOWN = -1000


class Known:
    """What is known of one run: what is in force, and what can't be known."""

    def __init__(self, node: Machine, judgements: Judgements) -> None:
        self._node = node
        self._judge = judgements
        self.is_sure = True
        """Whether the tables are as the product wrote them last."""
        self._why_unsure = ""
        self.links_changed = False
        self._rounds_in_doubt = 0
        """How many repairs may still write a table anew, as events were lost, or late."""
        self.has_lost_now = False
        self.has_failed = False
        """Whether the kernel failed within the last step."""
        self.may_remove = False
        self._old: Targets = {}
        self._new: Targets = {}
        self._may_be: list[Targets] = []
        """What else may be in force after a death."""
        self._was: list[Targets] = []
        """What might have been in force until this step."""
        self._absent: dict[Frontend, int] = {}
        """The last entry at the moment when a frontend was steered no longer."""
        self._last: dict[Frontend, Target] = {}
        """The last targets of frontends that are no longer steered."""
        self._has_forgotten = False
        """Whether the process can't know what an earlier one led where."""
        self._forgotten: set[Frontend] = set()
        """Frontends of which it isn't known where they led last."""
        self._was_sure = True
        """Whether the tables were so when this step began."""
        self._pins_are_sure = True
        self._pins: dict[tuple[str, str], tuple[SocketAddress, float]] = {}
        self._counts: Counter[Frontend] = Counter()
        self._reported: Counter[Frontend] = Counter()
        self._counts_are_sure = True
        self._released: dict[tuple[str, int], int] = {}
        """Ports that are no longer used, each with the repairs since then."""
        self._ever_used: set[tuple[str, int]] = set()
        self._turn = 0

    # What happens.

    def begin(self, old: Targets, new: Targets) -> None:
        """Note that a step of the product begins."""
        self._old, self._new, self._was = old, new, []
        self._was_sure = self.is_sure
        self._node.tables.conntrack.deleted.clear()

    def drifted(self) -> None:
        """Note that another program has changed the product's tables."""
        self.doubt("drift")
        if self._node.node.event_calls:
            self.lose_events()
        self._may_be.clear()
        self._counts_are_sure = self._pins_are_sure = False

    def doubt(self, why: str) -> None:
        """Note that it isn't known what the tables contain, until a repair."""
        self.is_sure, self._why_unsure = False, why

    def settled(self) -> None:
        """Note that all was written, or repaired."""
        self.is_sure = True
        self._rounds_in_doubt = max(0, self._rounds_in_doubt - 1)
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
        self.links_changed = False
        self._released = {port: count + 1 for port, count in self._released.items()}

    def round_broken_off(self) -> None:
        """Note that a repair has failed, perhaps after it was all but complete."""
        self._released = dict.fromkeys(self._released, UNKNOWN)

    def died(self, attempts: Attempts) -> None:
        """Note that the process has died within a step."""
        if attempts.done and (self.is_sure or self._may_be):
            self._may_be += [dict(self._old), dict(self._new)]
            self.doubt("death")

    def restarted(self) -> None:
        """Note that a new process begins, which counts from 0, and replaces the tables."""
        self._released = dict.fromkeys(self._ever_used, UNKNOWN)
        if not self.is_sure:
            # What showed where clients were led may be gone.
            self._last.clear()
            self._has_forgotten = True
            self._forget_ports()
            entries = self._node.tables.conntrack.entries.values()
            last = max((entry.number for entry in entries), default=0)
            self._absent = dict.fromkeys(FRONTENDS, last)
        self._counts.clear()
        self._reported.clear()
        self._pins.clear()
        self._counts_are_sure = True

    def forgotten(self) -> None:
        """Note that nothing is steered any more."""
        self._may_be.clear()
        if not self.is_sure:
            # Another program may have deleted what showed where clients were led.
            self._last.clear()
        self._forget_ports()
        self._counts.clear()
        self._reported.clear()
        self._pins.clear()

    def _forget_ports(self) -> None:
        self._released.clear()
        self._ever_used.clear()
