"""A simulated epoll: edges, levels, and events that are merged until they are read.

Source: fs/eventpoll.c, ep_poll_callback(), ep_item_poll() and ep_send_events(): a poll reports the
events that hold then, not those that woke the item. A level-triggered item stays queued.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .kernel import Kernel

_ALWAYS = select.EPOLLERR | select.EPOLLHUP
_ET = select.EPOLLET


class Item:
    """One descriptor in an epoll instance."""

    __slots__ = ("epoll", "events", "fd", "file")

    def __init__(self, epoll: Epoll, fd: int, file: Any, events: int) -> None:
        self.epoll = epoll
        self.fd = fd
        self.file = file
        self.events = events

    def wake(self, events: int) -> None:
        """Queue the item if it watches any of these events; 0 stands for all events."""
        if not events or events & (self.events | _ALWAYS):
            self.epoll.queue(self)


class Epoll:
    """Simulates select.epoll."""

    def __init__(self, kernel: Kernel, woken: Callable[[], None]) -> None:
        self._kernel = kernel
        self._woken = woken
        self._items: dict[int, Item] = {}
        self._ready: dict[int, Item] = {}
        self._fd = kernel.allocate(self)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        for item in self._items.values():
            item.file.item = None
        self._items.clear()
        self._kernel.release(self._fd)
        self._fd = -1

    def register(self, fd: int, events: int) -> None:
        self._kernel.enter("epoll_ctl")
        file = self._kernel.file_of(fd)
        if fd in self._items:
            self._kernel.violate(f"descriptor {fd} was registered twice")
            raise FileExistsError(errno.EEXIST, "registered")
        self._kernel.fault("watches")
        item = self._items[fd] = file.item = Item(self, fd, file, events)
        self._look_at(item)

    def modify(self, fd: int, events: int) -> None:
        self._kernel.enter("epoll_ctl")
        item = self._items[fd]
        item.events = events
        self._look_at(item)

    def unregister(self, fd: int) -> None:
        self._kernel.enter("epoll_ctl")
        self.forget(fd)

    def forget(self, fd: int) -> None:
        """Remove a descriptor, if it is registered."""
        item = self._items.pop(fd, None)
        self._ready.pop(fd, None)
        if item is not None:
            item.file.item = None

    def watches(self, fd: int) -> bool:
        """Return whether a descriptor is registered."""
        return fd in self._items

    def queue(self, item: Item) -> None:
        """Report an item in the next poll if one of its events holds then."""
        self._ready[item.fd] = item
        self._woken()

    @property
    def is_readable(self) -> bool:
        """Whether a poll would report an event."""
        for fd, item in list(self._ready.items()):
            if item.file.events() & (item.events | _ALWAYS):
                return True
            del self._ready[fd]
        return False

    def poll(self, _timeout: float, most: int) -> list[tuple[int, int]]:
        self._kernel.enter("epoll_wait")
        ready, self._ready = self._ready, {}
        batch: list[tuple[int, int]] = []
        again = []
        for fd, item in ready.items():
            if len(batch) == most:
                self._ready[fd] = item
                continue
            events = item.file.events() & (item.events | _ALWAYS)
            if events:
                batch.append((fd, events))
                if not item.events & _ET or self._kernel.draws_spurious():
                    again.append(item)
        for item in again:
            self._ready[item.fd] = item
        self._kernel.batch = {fd for fd, _ in batch}
        return batch

    def _look_at(self, item: Item) -> None:
        if item.file.events() & (item.events | _ALWAYS):
            self.queue(item)
