"""The agent's end of local steering, with a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from ...kernel.one_thread import InOneThread
from ...model import Frontend
from ..base import Bind, Steering, SteeringFacts, Target, render_targets
from .programmer import Programmer

Result = TypeVar("Result")


class LocalSteering(Steering):
    """Brings frontends to this node, where their listeners stand.

    Its network namespace is that of the thread that calls the first method.

    Args:
        facts: Of these the node's addresses, the proxy's name and, in a namespace of our own,
            the Service ranges are used.
        own_namespace: Whether the network namespace was made by us, for this.
        uses_nftables: Whether it may, where the kernel has it.
    """

    name = "local"
    bind = Bind.FRONTEND

    def __init__(
        self, facts: SteeringFacts, *, own_namespace: bool = False, uses_nftables: bool = True
    ) -> None:
        self.facts = facts
        # One thread: calls of netlink block, and none may overtake another.
        self._programmer = InOneThread(
            "local-steering",
            lambda: Programmer(facts, own_namespace=own_namespace, uses_nftables=uses_nftables),
        )

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering; the kernel knows no proxy port, so nothing is recovered.

        What an earlier run left is put right by the first ``apply``.
        """
        self.needs_transparent = await self._programmer.do(
            lambda programmer: programmer.needs_transparent
        )
        return {}

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Part of Steering."""
        asked = dict(wanted)
        await self._do(lambda programmer: programmer.apply(asked))

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Part of Steering."""
        touched: dict[Frontend, Target | None] = {**dict.fromkeys(gone), **changed}
        await self._do(lambda programmer: programmer.change(touched))

    async def render(self) -> str:
        """Part of Steering; a frontend that isn't brought here, or isn't guarded, is left out."""
        return render_targets(await self._programmer.do(Programmer.in_force))

    async def repair(self) -> int:
        """Part of Steering."""
        return await self._do(Programmer.repair)

    async def clean_up(self) -> None:
        """Part of Steering."""
        await self._do(Programmer.clean_up)

    async def close(self) -> None:
        """Part of Steering."""
        await self._programmer.close()

    async def _do(self, call: Callable[[Programmer], Result]) -> Result:
        """Have the programmer change something, and note what the kernel refuses then."""

        def all_three(programmer: Programmer) -> tuple[Result, Mapping[Frontend, str], str]:
            return call(programmer), programmer.unsteered(), programmer.unguarded

        result, self.unsteered, self.unguarded = await self._programmer.do(all_three)
        return result
