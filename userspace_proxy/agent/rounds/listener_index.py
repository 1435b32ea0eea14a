"""Which listener a frontend has, found without going through all Service ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ...model import Frontend
from ...plane import Listener


class HasListeners(Protocol):
    """A Service port."""

    @property
    def listeners(self) -> Mapping[Frontend, Listener]:
        """Its listeners."""


class ListenerIndex:
    """The listeners of served ports by frontend; may be read by any thread."""

    def __init__(self) -> None:
        self._owners: dict[Frontend, HasListeners] = {}

    def get(self, frontend: Frontend) -> Listener | None:
        """Return the listener of a frontend; None if it has none."""
        owner = self._owners.get(frontend)
        return None if owner is None else owner.listeners.get(frontend)

    def change(
        self, owner: HasListeners, listeners: dict[Frontend, Listener] | None = None
    ) -> dict[Frontend, Listener]:
        """Replace the frontends of a Service port that have listeners, by default with none.

        Frontends that another Service port has taken over remain that one's.

        Returns:
            What the Service port's own listeners must be from now on.
        """
        wanted = listeners or {}
        for frontend in owner.listeners.keys() - wanted.keys():
            if self._owners.get(frontend) is owner:
                del self._owners[frontend]
        self._owners.update(dict.fromkeys(wanted, owner))
        return wanted
