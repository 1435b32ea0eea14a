"""The changes of groups that wait for one worker process: those of a group are merged.

    waiting       change of A · change of B · close a listener of A · change of A
                       │             ▲                                     ▲
    next one of A      └ stays       │                                     └ becomes part of this
    next one of B                    └ becomes part of this

Rule 1: a change of a group becomes part of the one that waits, unless one of the group's listeners
has been closed or moved to another group since. The group may lose its endpoints next, and a worker
without an endpoint must not accept. What a listener joins may change before: the later state is
right for it, too.
Rule 2: at most two changes of each group wait, however many of its listeners close. Behind a change
that rule 1 keeps, all are merged; of that group alone clients may be refused a moment early then.
Rule 3: no group's messages affect the merging of others: the order of changes of different groups
doesn't matter to workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .group import GroupUpdate
from .messages import CloseListener, MoveListener, OpenListener, ToWorker


class Merging:
    """What waits for one process."""

    def __init__(self) -> None:
        self._waiting: dict[int, GroupUpdate] = {}
        """By group: the change that may still be brought up to date."""
        self._kept: dict[int, GroupUpdate] = {}
        """By group: a change before it that may not."""
        self._group_of: dict[int, int] = {}
        """By listener of the process."""

    def add(self, update: GroupUpdate) -> Callable[[], ToWorker] | None:
        """Return what makes the message when it is its turn; None if a change that waits has it."""
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
        """Note which group a listener serves, or leaves; call it before the message is sent."""
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
