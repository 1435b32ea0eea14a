"""Whether endpoints see their clients' own addresses, and what the data plane must know for it.

    kernel: Answers ──catches answers──▶ sockets of the data plane
    NodeRoutes ──links, routes──▶ policy.find_places ──networks──▶ Plane.preserve

Rule 1: where it can't be had, everything goes on with this node's address, and the page says
why.
Rule 2: what the kernel needs goes last of all, after the drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from ..dataplane import AnyPlane
from ..errors import SteeringError
from ..policy.places import NodeLink, find_places
from ..steering import Answers
from .node_routes import NodeRoutes
from .tasks import pause

_log = logging.getLogger("userspace_proxy.agent")

# As often as the steering: routes that others flush are there again within two seconds.
REPAIR_S = 1.0
# Cilium's programs carry what pods answer past this node's stack, on most of its settings.
_PAST_THE_STACK = "cilium_host"


class Preserving:
    """The preservation of client addresses by one proxy.

    Args:
        proxy_name: Its ``--service-proxy-name``; empty without one.
        cluster: ``--cluster-cidr``.
    """

    def __init__(self, proxy_name: str, cluster: Iterable[str]) -> None:
        self.why_not = "it was not started"
        """Why nobody's address is kept, in words; empty where some are."""
        self.repairs = 0
        self._proxy_name = proxy_name
        self._cluster = tuple(cluster)
        self._answers = Answers(proxy_name)
        self._routes: NodeRoutes | None = None
        self._plane: AnyPlane | None = None
        self._problem = ""

    async def start(self) -> None:
        """Have the kernel catch answers; see :attr:`why_not` for how that went."""
        try:
            routes = self._routes = NodeRoutes(asyncio.get_running_loop(), self._tell_plane)
        except SteeringError as exc:
            self.why_not = exc.message
            return
        self.why_not = why_impossible(routes.links) or await self._answers.start()
        if self.why_not:
            _log.info("endpoints see this node's address", extra={"cause": self.why_not})

    async def leave_nothing(self) -> None:
        """Remove what an earlier run of this proxy has left, where this one won't use it."""
        with contextlib.suppress(SteeringError):
            await self._answers.clean_up()

    def follow(self, plane: AnyPlane) -> None:
        """Tell a data plane where networks are, now and whenever that changes."""
        self._plane = plane
        self._tell_plane()

    async def repair(self) -> None:
        """Put right what others undo, for ever."""
        while not self.why_not:
            await pause(REPAIR_S)
            try:
                count = await self._answers.repair()
            except SteeringError as exc:
                self._note(str(exc))
                continue
            self._note("")
            if count:
                self.repairs += count
                _log.warning("what catches answers had drifted", extra={"parts": count})

    @property
    def problem(self) -> str:
        """What can't be put right at this moment; empty when all is well."""
        return self._problem

    async def clean_up(self) -> None:
        """Remove what was made in the kernel; open connections that need it end. Idempotent.

        Raises:
            SteeringError: The kernel refused.
        """
        if not self.why_not:
            await self._answers.clean_up()

    async def close(self) -> None:
        """Stop watching, and catch nothing from now on; idempotent."""
        if self._routes is not None:
            self._routes.close()
        await self._answers.close()

    def _tell_plane(self) -> None:
        if self._plane is None or self._routes is None or self.why_not:
            return
        routes = self._routes
        self._plane.preserve(find_places(routes.links, routes.routes, self._cluster))

    def _note(self, problem: str) -> None:
        """Have nobody dial in a client's name while the answers would be lost."""
        if problem == self._problem:
            return
        self._problem = problem
        if problem:
            _log.error("answers to clients' own addresses are not caught", extra={"cause": problem})
            if self._plane is not None:
                self._plane.preserve(None)
        else:
            self._tell_plane()


def why_impossible(links: Iterable[NodeLink]) -> str:
    """Return why answers of pods don't pass this node's stack, in words; empty where they do."""
    if any(link.name == _PAST_THE_STACK for link in links):
        return "Cilium carries what pods answer past this node's network stack"
    return ""
