"""Merges changes of a group while they wait to be sent to one worker process.

    waiting       change of A · change of B · close a listener of A · change of A
                       │             ▲                                     ▲
    next change of A   └ stays       │                                     └ is merged into this
    next change of B                 └ is merged into this

Rule 1: a change to a group is merged into the waiting change, unless one of the group's listeners
has been closed or moved to another group since: the new change may remove the last endpoint, and a
worker without an endpoint must not accept. A change may be merged across a listener that joins the
group, because the later state is also correct for that listener.
Rule 2: at most two changes to a group wait, however many of its listeners close: all changes after
the change that rule 1 keeps are merged, so clients may be refused a moment too early.
Rule 3: messages of one group don't affect the merging for other groups: workers don't depend on the
order of changes to different groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .group import GroupUpdate
from .messages import CloseListener, MoveListener, OpenListener, ToWorker


class Merging:
    """The changes that wait to be sent to one worker process."""

    def __init__(self) -> None:
        self._waiting: dict[int, GroupUpdate] = {}
        """The waiting change to each group, which may still be updated."""
        self._kept: dict[int, GroupUpdate] = {}
        """An earlier waiting change to a group, which must not be updated."""
        self._group_of: dict[int, int] = {}
        """The group of each listener of the process."""

    def add(self, update: GroupUpdate) -> Callable[[], ToWorker] | None:
        """Record a change; return a function that creates the message, or None if it was merged."""
        if (waiting := self._waiting.get(update.group)) is not None:
            waiting.new = update.new
            return None
        waiting = self._waiting[update.group] = replace(update)

        def take() -> ToWorker:
            for changes in (self._waiting, self._kept):
                if changes.get(waiting.group) is waiting:
                    del changes[waiting.group]
            return waiting.message()

        return take

    def note(self, message: ToWorker) -> None:
        """Record which group a listener joins or leaves (Rule 1), before the message is sent."""
        if isinstance(message, OpenListener):
            self._group_of[message.listener] = message.group
        elif isinstance(message, MoveListener | CloseListener):
            left = self._group_of.pop(message.listener, None)
            if left is None:
                return
            if isinstance(message, MoveListener):
                self._group_of[message.listener] = message.group
            if left in self._waiting and left not in self._kept:
                self._kept[left] = self._waiting.pop(left)
