"""The links of a node that have changed, until the product must know them."""

from __future__ import annotations

from collections.abc import Collection

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
        self._changed_at = 0.0
        self._are_late = False
        """Whether an event hadn't arrived when this step began."""
        self._interrupted = 0

    def note(self, number: int, moved: Collection[str] = ()) -> None:
        """Note that a link has changed, and which addresses have gone or come with that."""
        self.changed.add(number)
        self.moved.update(moved)
        self._changed_at = self._node.kernel.now()

    def begin(self) -> None:
        """Note that a step of the product begins."""
        self._are_late = any(sock.has_late for sock in self._node.kernel.sockets)
        if self._interrupted != self._node.routes.interrupted:
            # After that listing there was a pause, too.
            self._interrupted = self._node.routes.interrupted
            self._changed_at = self._node.kernel.now()

    def round_over(self) -> None:
        """Note that a repair is complete."""
        if self._must_be_known():
            self.changed.clear()
            self.moved.clear()

    def _must_be_known(self) -> bool:
        """Return whether the product must know all links after the repair that ends.

        Where a listing takes long, those that it knows may be a second old; and older while each
        listing is interrupted.
        """
        node = self._node
        if self._are_late or self._interrupted != node.routes.interrupted:
            return False
        return not node.node.listing_cpu_s or node.kernel.now() - self._changed_at >= _OLD_S
