"""Decides whether endpoints see client addresses, and configures the data plane for it.

    kernel: ReplyRouting ──catches replies──▶ sockets of the data plane
    NodeRoutes ──links──▶ do they return here?   NodeRoutes ──networks──▶ Plane.preserve

Rule 1: where it is impossible, everything works with this node's address, and the page shows
the reason.
Rule 2: kernel state is removed last, after the drain; if replies no longer return through this
node, open connections keep their addresses.
Rule 3: families are independent: one that a node has switched off doesn't affect the other.
Rule 4: sysctls change without notice, so they are read at every repair: dials on a bridge whose
packets are no longer filtered go unanswered for no longer than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from ..errors import SteeringError
from ..kernel.routes import NodeRoutes
from ..plane import Plane
from ..policy.bridges import BridgeObstacle
from ..policy.locality import NodeLink
from ..steering import ReplyRouting
from .client_bridges import ClientBridges
from .tasks import pause

_log = logging.getLogger("userspace_proxy.agent")

# As often as the steering: routes that others flush are there again within two seconds.
REPAIR_S = 1.0
# What the kernel has refused it may grant later: a module is loaded, memory is free again.
RETRY_S = 30.0
# Cilium's programs carry what pods answer past this node's stack, on most of its settings.
_PAST_THE_STACK = "cilium_host"


class ClientAddresses:
    """The preservation of client addresses by one proxy.

    Args:
        proxy_name: Its ``--service-proxy-name``; empty without one.
        cluster: ``--cluster-cidr``.
    """

    def __init__(self, proxy_name: str, cluster: Iterable[str]) -> None:
        self.repairs = 0
        self._cluster = tuple(cluster)
        self._replies = ReplyRouting(proxy_name)
        self._routes: NodeRoutes | None = None
        self._plane: Plane | None = None
        self._refusal = "it has not begun"
        self._obstacle = ""
        self._without_ipv6 = ""
        self._problem = ""
        self._bridges = ClientBridges()
        self._has_news = asyncio.Event()

    @property
    def bridge_obstacles(self) -> tuple[BridgeObstacle, ...]:
        """Why endpoints on some bridges don't see the addresses of clients on the same one."""
        return self._bridges.obstacles

    @property
    def why_not(self) -> str:
        """Why nobody's address is kept, in words; empty where some are."""
        return self._obstacle or self._refusal

    async def start(self) -> None:
        """Have the kernel catch answers; see :attr:`why_not` for how that went."""
        await self._begin()
        if self._obstacle:
            await self.leave_nothing()
        if self.why_not:
            _log.info("endpoints see this node's address", extra={"cause": self.why_not})

    async def leave_nothing(self) -> None:
        """Remove what an earlier run of this proxy has left, where this one won't use it."""
        with contextlib.suppress(SteeringError):
            await self._replies.clean_up()

    def follow(self, plane: Plane) -> None:
        """Tell a data plane where networks are, now and whenever that changes."""
        self._plane = plane
        self._tell_plane()

    async def repair(self) -> None:
        """Put right what others undo, and begin what could not be begun, for ever."""
        while True:
            if not self._refusal:
                await self._put_right()
                await self._rest()
                continue
            await pause(RETRY_S)
            await self._begin()
            if not self.why_not:
                _log.info("endpoints now see client addresses")
                self._tell_plane()

    @property
    def problem(self) -> str:
        """What can't be put right at this moment; empty when all is well."""
        return self._problem

    async def clean_up(self) -> None:
        """Remove what was made in the kernel; open connections that need it end. Idempotent.

        Raises:
            SteeringError: The kernel refused.
        """
        if self._refusal:
            # Then it refuses that, too, or there is nothing.
            await self.leave_nothing()
        else:
            await self._replies.clean_up()

    async def close(self) -> None:
        """Stop watching, and catch nothing from now on; idempotent."""
        if self._routes is not None:
            self._routes.close()
        await self._replies.close()

    async def _begin(self) -> None:
        """Watch routes, and catch answers unless they don't come here."""
        if self._routes is None:
            loop = asyncio.get_running_loop()
            try:
                self._routes = NodeRoutes(loop, self._follow_node, self._cluster)
            except SteeringError as exc:
                self._refusal = exc.message
                return
            self._obstacle = why_impossible(self._routes.links)
            self._follow_bridges(self._routes)
        if not self._obstacle:
            self._refusal = await self._replies.start()
            self._note_ipv6()

    async def _rest(self) -> None:
        """Wait for the next repair, or until bridges have changed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPAIR_S):
                await self._has_news.wait()
        self._has_news.clear()

    async def _put_right(self) -> None:
        if self._routes is not None:
            self._routes.look_at_settings()
        try:
            count = await self._replies.repair(self._bridges.wanted)
        except SteeringError as exc:
            self._note(str(exc))
            return
        self._note("")
        has_changed = self._bridges.note(self._replies.bridges, self._replies.without_bridges)
        self._bridges.log_obstacles()
        if self._note_ipv6() or has_changed:
            self._tell_plane()
        if count:
            self.repairs += count
            _log.warning(
                "rules that catch replies had drifted and were repaired", extra={"parts": count}
            )

    def _follow_node(self) -> None:
        """Take the node's links and routes as they have become."""
        if self._routes is None:
            return
        before, self._obstacle = self._obstacle, why_impossible(self._routes.links)
        if self._obstacle and not before:
            _log.warning("endpoints now see this node's address", extra={"cause": self._obstacle})
        elif before and not self.why_not:
            _log.info("endpoints see client addresses again")
        self._follow_bridges(self._routes)
        self._tell_plane()

    def _follow_bridges(self, routes: NodeRoutes) -> None:
        self._bridges.follow(routes.links, routes.networks, routes.bridge_filter)
        self._has_news.set()

    def _tell_plane(self) -> None:
        if self._plane is None or self._routes is None:
            return
        if self.why_not or self._problem:
            self._plane.preserve(None)
            return
        networks = self._routes.networks
        if self._without_ipv6:
            networks = {text: place for text, place in networks.items() if ":" not in text}
        self._plane.preserve(self._bridges.mark(networks))

    def _note(self, problem: str) -> None:
        """Have nobody dial in a client's name while the answers would be lost."""
        if problem == self._problem:
            return
        self._problem = problem
        if problem:
            _log.error("cannot catch replies to client addresses", extra={"cause": problem})
        self._tell_plane()

    def _note_ipv6(self) -> bool:
        """Tell whether IPv6 has become another case than it was."""
        if self._replies.without_ipv6 == self._without_ipv6:
            return False
        self._without_ipv6 = self._replies.without_ipv6
        if self._without_ipv6:
            _log.info(
                "endpoints don't see the addresses of IPv6 clients",
                extra={"cause": self._without_ipv6},
            )
        return True


def why_impossible(links: Iterable[NodeLink]) -> str:
    """Return why answers of pods don't pass this node's stack, in words; empty where they do."""
    if any(link.name == _PAST_THE_STACK for link in links):
        return "Cilium delivers replies of pods past this node's network stack"
    return ""
