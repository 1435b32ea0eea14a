"""`nftables` steering that also translates connect() of this node's programs, before the rules.

change ─▶ hooks drop frontends they may no longer translate ─▶ rules ─▶ hooks add new frontends
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...errors import SteeringError
from ...kernel.offers import LACKS_NOTHING, KernelOffers
from ...kernel.one_thread import OneThread
from ...log_fields import FieldLogger
from ...model import Frontend
from ..base import Steering, SteeringFacts, Target
from ..nftables import NftablesSteering
from ..selection import choose, make_steering
from .hooks import HookOptions, Hooks, find_place

_log = FieldLogger("userspace_proxy.steering")


class HookedSteering(NftablesSteering):
    """`nftables` steering with connect() hooks, if these can work.

    Args:
        options: Where to attach hooks, and whether they must work.
    """

    def __init__(
        self,
        facts: SteeringFacts,
        options: HookOptions,
        kernel: KernelOffers = LACKS_NOTHING,
    ) -> None:
        super().__init__(facts, kernel)
        self.hooks: Hooks | None = None
        """The hooks in use; None before the start, if they can't work here, or once removed."""
        self._options = options
        self._loaded = Hooks(options, facts.proxy_name, kernel)
        self._hooks_thread = OneThread("socket-lb")

    async def start(self) -> Mapping[Frontend, int]:
        try:
            await self._hooks_thread.run(self._loaded.start)
        except SteeringError as exc:
            if self._options.is_required:
                raise
            _log.warning("socket load balancing is off: %(cause)s", extra={"cause": str(exc)})
            try:
                await self._hooks_thread.run(self._loaded.remove)
            except SteeringError as stay:
                # Only log this, because the programs stop translating when their term expires.
                _log.warning(
                    "cannot remove the connect() hooks, which translate until their term expires: "
                    "%(cause)s",
                    extra={"cause": str(stay)},
                )
        else:
            self.hooks = self._loaded
        return await super().start()

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        hooks = self.hooks
        if hooks is not None:
            await self._hooks_thread.run(lambda: hooks.leave_all_but(wanted))
        await super().apply(wanted)
        if hooks is not None:
            await self._hooks_thread.run(lambda: hooks.replace(wanted))

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        hooks, affected = self.hooks, {**dict.fromkeys(gone), **changed}
        if hooks is not None:
            await self._hooks_thread.run(lambda: hooks.leave(affected))
        await super().change(changed, gone)
        if hooks is not None:
            await self._hooks_thread.run(lambda: hooks.change(affected))

    async def repair(self) -> int:
        try:
            return await super().repair()
        finally:
            await self._hooks_thread.run(self._loaded.repair)

    async def clean_up(self) -> None:
        self.hooks = None
        try:
            await self._hooks_thread.run(self._loaded.remove)
        finally:
            await super().clean_up()

    async def close(self) -> None:
        if self._hooks_thread.has_begun:
            await self._hooks_thread.run(self._loaded.close)
            self._hooks_thread.close()
        await super().close()


def make_hooked_steering(
    name: str,
    facts: SteeringFacts,
    hooks: HookOptions | None,
    *,
    own_namespace: bool = False,
    kernel: KernelOffers = LACKS_NOTHING,
) -> Steering:
    """Return the mechanism as :func:`.make_steering` does, with hooks if it has a kernel path.

    Args:
        hooks: The options of the hooks; None if connect() isn't to be translated.

    Raises:
        SteeringError: There is no such mode, or no mode works here (``auto``).
    """
    if hooks is not None:
        name = choose(name, kernel, own_namespace=own_namespace)
        if name == "nftables":
            return HookedSteering(facts, hooks, kernel)
        _log.warning("socket load balancing is off: %(cause)s", extra={"cause": _lack_of(name)})
    return make_steering(name, facts, own_namespace=own_namespace, kernel=kernel)


def check_hooks(
    name: str, hooks: HookOptions | None, kernel: KernelOffers, *, own_namespace: bool
) -> None:
    """Check that translating connect() is possible, if it is required; this changes nothing.

    Raises:
        SteeringError: Translating is required but impossible, so startup would fail.
    """
    if hooks is None or not hooks.is_required:
        return
    chosen = choose(name, kernel, own_namespace=own_namespace)
    if chosen != "nftables":
        what = f"cannot start: connect() isn't translated: {_lack_of(chosen)}"
        raise SteeringError(what, hint="--steering=nftables")
    find_place(hooks, kernel)


def _lack_of(chosen: str) -> str:
    return f"steering {chosen} has no kernel path"
