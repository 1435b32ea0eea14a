"""Decides whether endpoints see client addresses, and configures the data plane accordingly.

    kernel: ReplyRouting ──catches replies──▶ sockets of the data plane
    NodeRoutes ──links──▶ do replies return here?
               ──links, routes──▶ policy.locality ──networks──▶ Plane.preserve

Rule 1: where endpoints can't see client addresses, connections use this node's address, and the
page shows the reason.
Rule 2: kernel state is removed last, after the drain; if replies no longer return through this
node, open connections keep their addresses.
Rule 3: families are independent: a disabled family doesn't affect the other.
Rule 4: with ``--path=kernel``, preservation begins with the first Service port that the proxy
serves. With preservation, packets pass routing rules and a chain, so a UDP exchange on the kernel
path is 8 % slower.
Rule 5: sysctls change without an event, so they are read at every repair. If packets on a bridge
are no longer filtered, dials from client addresses on it fail until the next repair.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Iterable

from ...errors import SteeringError
from ...facts import BridgeFacts, ClientAddressFacts, StatusFacts
from ...kernel.nf_tables.owned import OwnerSockets
from ...kernel.offers import LACKS_NOTHING, KernelOffers
from ...kernel.routes import NodeRoutes
from ...log_fields import FieldLogger
from ...logged_condition import LoggedCondition
from ...model import DataPath
from ...model.node_network import NodeLink
from ...plan import PlanChanges
from ...plane import Plane
from ...policy.locality import Networks, find_networks
from ...steering import ReplyRouting
from ..rounds.component import Component
from ..rounds.tasks import Supervisor, pause
from .client_bridges import ClientBridges

_log = FieldLogger("userspace_proxy.agent")

# The interval of repairs, as for steering rules: routes that another program flushes are restored
# within two seconds.
REPAIR_S = 1.0
# The interval of retries: the kernel may permit a refused operation later, for example after a
# module was loaded.
RETRY_S = 30.0
# An interface created by Cilium. With most settings, Cilium's programs make pods' replies bypass
# this node's network stack, so client addresses can't be preserved.
_PAST_THE_STACK = "cilium_host"


class ClientAddresses(Component):
    """Preserves client addresses for one proxy, where replies return through this node.

    Args:
        proxy_name: The proxy's ``--service-proxy-name``; empty without one.
        cluster: The value of ``--cluster-cidr``.
        owners: The sockets that own kernel tables; None: only sockets of this object.
    """

    def __init__(
        self,
        proxy_name: str,
        cluster: Iterable[str],
        owners: OwnerSockets | None = None,
        kernel: KernelOffers = LACKS_NOTHING,
    ) -> None:
        self.repairs = 0
        self.problem = ""
        """Why the last repair failed; empty if it succeeded, or before the first repair."""
        self._cluster = tuple(cluster)
        self._replies = ReplyRouting(proxy_name, owners, kernel)
        self._routes: NodeRoutes[Networks] | None = None
        self._bridges = ClientBridges()
        self._has_news = asyncio.Event()
        self._refusal = "it has not begun"
        self._has_started = asyncio.Event()
        self._obstacle = ""
        self._plane: Plane | None = None
        self._networks: Networks | None = None
        """The networks last sent to the plane."""
        self._condition = LoggedCondition[str](
            _log,
            "endpoints see this node's address, not the client's: %(cause)s",
            "endpoints see client addresses again",
        )
        self._ipv6_condition = LoggedCondition[str](
            _log,
            "endpoints do not see the addresses of IPv6 clients: %(cause)s",
            "endpoints see the addresses of IPv6 clients again",
            level=logging.INFO,
        )

    @property
    def reason(self) -> str:
        """Why preservation can't work; empty if it can (but see ``problem``), or hasn't begun."""
        return (self._obstacle or self._refusal) if self._has_started.is_set() else ""

    async def begin(self) -> None:
        """Start to catch replies in the kernel; on failure, :attr:`reason` contains the cause."""
        await self._catch()
        if self._obstacle:
            await self.leave_nothing()
        self._has_started.set()
        self._update()

    async def prepare(self, changes: PlanChanges) -> None:
        """Call :meth:`begin` before a Service port that isn't on the kernel path is served."""
        if self._has_started.is_set():
            return
        if any(port.path.path is not DataPath.KERNEL for port in (*changes.open, *changes.update)):
            await self.begin()

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("client addresses", self.repair)

    def show(self, facts: StatusFacts) -> None:
        reason, problem = self.reason, self.problem
        facts.client_address = ClientAddressFacts(
            is_on=not reason and not problem,
            reason=reason,
            problem=problem,
            repairs=self.repairs,
            bridges=[
                BridgeFacts(bridge, f"IPv{version}", cause, hint)
                for bridge, version, cause, hint in self._bridges.obstacles
            ],
        )

    async def leave_nothing(self) -> None:
        """Try to remove kernel state of an earlier run that this run doesn't use."""
        with contextlib.suppress(SteeringError):
            await self._replies.clean_up()

    def follow(self, plane: Plane) -> None:
        """Begin to pass the locations of networks to a data plane."""
        self._plane = plane
        self._update()

    async def repair(self) -> None:
        """Repair changes by other programs, and retry refused operations, until cancelled."""
        await self._has_started.wait()
        while True:
            if self._refusal:
                await pause(RETRY_S)
                await self._catch()
                self._update()
            else:
                await self._repair()
                self._update()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REPAIR_S):
                        await self._has_news.wait()
                self._has_news.clear()

    async def clean_up(self) -> None:
        """Remove the kernel state; open connections that depend on it break. Idempotent.

        Raises:
            SteeringError: The kernel refused the removal.
        """
        if self._refusal:
            # If the kernel refused to add state, nothing was added, or its removal is also refused.
            await self.leave_nothing()
        else:
            await self._replies.clean_up()

    async def close(self) -> None:
        if self._routes is not None:
            self._routes.close()
        await self._replies.close()

    async def _catch(self) -> None:
        """Watch routes, and catch replies in the kernel if they return through this node."""
        if self._routes is None:
            loop = asyncio.get_running_loop()
            try:
                find = functools.partial(find_networks, cluster=self._cluster)
                self._routes = NodeRoutes(loop, self._follow_node, find)
            except SteeringError as exc:
                self._refusal = exc.message
                return
            self._follow_node()
        if not self._obstacle:
            self._refusal = await self._replies.start(self._bridges.wanted)

    async def _repair(self) -> None:
        if self._routes is not None:
            self._routes.look_at_settings()
        try:
            count = await self._replies.repair(self._bridges.wanted)
        except SteeringError as exc:
            self.problem = str(exc)
            return
        self.problem = ""
        self._bridges.note(self._replies.bridges, self._replies.without_bridges)
        self._bridges.log_obstacles()
        if count:
            self.repairs += count
            _log.warning(
                "repaired reply routing that another program had changed", extra={"parts": count}
            )

    def _follow_node(self) -> None:
        """Apply the node's current links, routes and settings, and wake the repair."""
        routes = self._routes
        if routes is not None:
            now = routes.now
            self._obstacle = impossible_reason(now.links)
            self._bridges.follow(now.links, now.derived, now.bridge_filter)
            self._has_news.set()
            self._update()

    def _update(self) -> None:
        """Pass changed networks to the plane, and log which address endpoints now see."""
        if self._plane is None or not self._has_started.is_set():
            return
        cause, without_ipv6 = self.reason or self.problem, self._replies.without_ipv6
        self._condition.set(cause)
        self._ipv6_condition.set(without_ipv6)
        networks: Networks | None = None
        if self._routes is not None and not cause:
            networks = self._bridges.mark(self._routes.now.derived)
            if without_ipv6:
                networks = {text: place for text, place in networks.items() if ":" not in text}
        if networks != self._networks:
            self._networks = networks
            self._plane.preserve(networks)


def impossible_reason(links: Iterable[NodeLink]) -> str:
    """Return why pods' replies bypass this node's network stack; empty if they don't."""
    if any(link.name == _PAST_THE_STACK for link in links):
        return "Cilium delivers replies of pods past this node's network stack"
    return ""
