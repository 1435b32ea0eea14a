"""The links of a node that have changed, until the product must know them."""

from __future__ import annotations

from collections.abc import Collection

from ..netlink_routes import Link
from .link_roles import leads_to_containers, must_masquerade
from .node import Machine

# From the end of one listing to the next, at most; and what the steps of a repair take.
_OLD_S = 1.1


class KnownLinks:
    """What the product may not know of the links of one run."""

    def __init__(self, node: Machine) -> None:
        self._node = node
        self.changed: set[int] = set()
        """The numbers of links that it may not know."""
        self.moved: set[str] = set()
        """Addresses that have gone or come since it knew all links, also those that are back."""
        self.fresh: set[int] = set()
        """Those with another role that it knows since the step that ends."""
        self._unseen: set[int] = set()
        """Those of which only routes have changed since it was last told of links or addresses."""
        self._unlooked: set[int] = set()
        """Those of which the product, without a kernel path, needn't have looked at the role."""
        self._interrupted_before = 0
        """How many listings were interrupted up to the last repair without a kernel path."""
        self._roles = self._now()
        self._changed_at = 0.0
        self._are_late = False
        """Whether an event hadn't arrived when this step began."""
        self._interrupted = 0

    def note(self, numbers: Collection[int], moved: Collection[str] = ()) -> None:
        """Note that links have changed, and which addresses have gone or come with that."""
        self.changed.update(numbers)
        self.moved.update(moved)
        self._unseen.clear()
        self._changed_at = self._node.kernel.now()

    def note_routes(self, number: int) -> None:
        """Note that only routes to a link have changed.

        The product isn't told: it knows them once a link or an address has changed after that.
        """
        self.changed.add(number)
        self._unseen.add(number)
        self._changed_at = self._node.kernel.now()

    def begin(self) -> None:
        """Note that a step of the product begins."""
        self.fresh.clear()
        self._are_late = any(sock.has_late for sock in self._node.kernel.sockets)
        if self._interrupted != self._node.routes.interrupted:
            # After that listing there was a pause, too.
            self._interrupted = self._node.routes.interrupted
            self._changed_at = self._node.kernel.now()

    def round_over(self) -> None:
        """Note that a repair is complete."""
        if not self._must_be_known():
            return
        before, now = self._roles, self._now()
        known = self.changed - self._unseen
        self.fresh = {n for n in known if before.get(n) != now.get(n)}
        self._roles = before | {n: now.get(n, False) for n in known}
        self.changed &= self._unseen
        if any("/paths" in one.name for one in self._node.own_tables):
            self._unlooked.clear()
        else:
            self._unlooked |= known
            self._interrupted_before = self._interrupted
        self.moved.clear()

    def must_masquerade(self, way_in: Link | None, way_out: Link | None) -> bool | None:
        """Return whether an endpoint must see this node's address; None: it may, or not.

        The first frontend on the kernel path has links listed. If that is interrupted, the last
        listing before it counts, and it may be of any age.
        """
        unknown = self.changed
        if self._node.routes.interrupted != self._interrupted_before:
            unknown = unknown | self._unlooked
        if any(one is not None and one.number in unknown for one in (way_in, way_out)):
            return None
        return must_masquerade(way_in, way_out, self._node.routes.links.values())

    def _now(self) -> dict[int, bool]:
        links = self._node.routes.links
        return {n: leads_to_containers(one, links.values()) for n, one in links.items()}

    def _must_be_known(self) -> bool:
        """Return whether the product must know all links after the repair that ends.

        Where a listing takes long, those that it knows may be a second old; and older while each
        listing is interrupted.
        """
        node = self._node
        if self._are_late or self._interrupted != node.routes.interrupted:
            return False
        return not node.node.listing_cpu_s or node.kernel.now() - self._changed_at >= _OLD_S
