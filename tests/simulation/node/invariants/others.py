"""Other programs' tables aren't changed, and their ports get no client of a Service."""

from __future__ import annotations

from ...network import Address
from .base import Invariant


class Others(Invariant):
    """Judges tables and ports of other programs, as the module describes."""

    NAME = "other programs"

    def led_to_port(self, client: Address, to: Address, number: int, *, is_tcp: bool) -> None:
        others = self._world.machine.others
        has_other = any(at[1] == number and tcp is is_tcp for at, tcp in others)
        is_own = any(p.port == number and p.is_tcp is is_tcp for p in self._world.machine.ports)
        # The destination is unknown while another program's changes are in the tables.
        is_right = is_own or not has_other or bool(self._world.kernel.drifted)
        self.check(is_right, f"{client[0]} at {to} is led to port {number} of another program")

    def look(self) -> None:
        kernel = self._world.kernel
        if kernel.version != self._seen:
            self._seen = kernel.version
            self.check(kernel.foreign_now() == kernel.foreign, "others' tables have changed")

    _seen = -1
