"""The agent's end of steering by nftables: from frontends to ports, in a thread of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...errors import SteeringError
from ...kernel.one_thread import InOneThread
from ...model import Frontend
from ..base import REFUSE, Bind, Steering, SteeringFacts, Target, render_targets
from .programmer import Programmer


class NftablesSteering(Steering):
    """Maps from frontends to ports in a table of our own.

    Its network namespace is that of the thread that calls the first method.

    Args:
        facts: Of these all are used but the Service ranges; the refuse port must be set.
    """

    name = "nftables"
    bind = Bind.PROXY_PORT
    needs_transparent = True

    def __init__(self, facts: SteeringFacts) -> None:
        self.facts = facts
        # One thread: calls to the kernel block, and none may overtake another.
        self._programmer = InOneThread("nftables-steering", lambda: Programmer(facts))

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering."""
        return await self._programmer.do(Programmer.start)

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Part of Steering."""
        asked = dict(wanted)
        await self._programmer.do(lambda programmer: programmer.apply(self._ports(asked)))
        if not await self._programmer.do(lambda programmer: programmer.checks_sockets):
            self.unguarded = "this kernel has no nft_socket"

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Part of Steering."""
        touched: dict[Frontend, int | None] = {**dict.fromkeys(gone), **self._ports(changed)}
        await self._programmer.do(lambda programmer: programmer.change(touched))

    async def render(self) -> str:
        """Part of Steering."""
        ports = await self._programmer.do(Programmer.render)
        refuse_port = self.facts.refuse_port
        return render_targets({f: REFUSE if p == refuse_port else p for f, p in ports.items()})

    async def repair(self) -> int:
        """Part of Steering."""

        def both(programmer: Programmer) -> tuple[int, Mapping[Frontend, str]]:
            return programmer.repair(), programmer.unsteered

        count, self.unsteered = await self._programmer.do(both)
        return count

    async def clean_up(self) -> None:
        """Part of Steering."""
        await self._programmer.do(Programmer.clean_up)

    async def close(self) -> None:
        """Part of Steering."""
        await self._programmer.close()

    def _ports(self, targets: Mapping[Frontend, Target]) -> dict[Frontend, int]:
        refuse_port = self.facts.refuse_port
        ports = {f: refuse_port if target is REFUSE else target for f, target in targets.items()}
        if not all(ports.values()):
            refused = next(frontend for frontend, port in ports.items() if not port)
            raise SteeringError(f"cannot refuse {refused}: no refuse port was given")
        return ports
