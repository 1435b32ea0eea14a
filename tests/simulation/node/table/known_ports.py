"""The proxy ports that a steering guards, and those that it must not guard any more.

Source: docs/adr/0012 and the docstring of ``steering.programmer.ReleasedPorts``: a port stays
guarded until the second repair after its last frontend has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

Port = tuple[str, int]
"""A protocol and a number."""
_ROUNDS = 2


class KnownPorts:
    """What is known of the proxy ports of one run."""

    def __init__(self) -> None:
        self.ever_used: set[Port] = set()
        self._used: Set[Port] = frozenset()
        self._rounds: dict[Port, int] = {}
        """Of ports that are no longer used: how many repairs were complete since then."""
        self._unsure: set[Port] = set()
        """Those of them that may be open before their time."""

    def use(self, used: Set[Port], *, is_known: bool) -> None:
        """Note which ports are used now; whether it is known that others were left right now."""
        for port in self.ever_used - used - self._rounds.keys():
            self._rounds[port] = 0
            if not is_known:
                self._unsure.add(port)
        for port in used:
            self._rounds.pop(port, None)
        self._unsure -= used
        self._used = frozenset(used)
        self.ever_used |= used

    def round_over(self) -> None:
        """Note that a repair is complete."""
        self._rounds = {port: count + 1 for port, count in self._rounds.items()}

    def round_broken_off(self) -> None:
        """Note that a repair has failed: what it was to open is opened later, or is open."""
        self._begin_again(self._rounds)

    def restarted(self) -> None:
        """Note that a new process begins, which counts from 0, and will replace the tables."""
        self._begin_again(self.ever_used)

    def forget(self) -> None:
        """Note that nothing is guarded any more."""
        self.ever_used.clear()
        self._rounds.clear()
        self._unsure.clear()

    def must_be_guarded(self, port: Port) -> bool:
        if port in self._used:
            return True
        return port not in self._unsure and self._rounds.get(port, _ROUNDS) < _ROUNDS

    def must_be_open(self, port: Port) -> bool:
        return self._rounds.get(port, 0) > _ROUNDS

    def _begin_again(self, ports: Iterable[Port]) -> None:
        self._rounds = dict.fromkeys(ports, 0)
        self._unsure.update(self._rounds)
