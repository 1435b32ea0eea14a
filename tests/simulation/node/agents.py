"""One agent of the product in a simulated process, until it is stopped or dies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from userspace_proxy.agent.agent import Agent
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.dataplane import Tuning
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.kernel.offers import LACKS_NOTHING
from userspace_proxy.model import DataPath

from .disk import FOLDER
from .families import with_six
from .plan import DRAIN_S, NODE, POD_NETWORK

if TYPE_CHECKING:
    from .machine import AgentProcess
    from .world import World

_TUNING = Tuning(descriptor_limit=400, connection_log=0.0)


class AgentRun:
    """One agent of the product, and the process in which it runs."""

    def __init__(self, world: World, process: AgentProcess) -> None:
        self.world = world
        self.process = process
        self.agent: Agent | None = None
        self.is_started = False
        self.ends_since = float("inf")
        """The time at which the agent was asked to stop; infinite before."""
        self.served_at = float("inf")
        """The time at which the first round was applied; infinite before."""
        self._stop = asyncio.Event()

    @property
    def core(self) -> Any:
        """The agent's parts; None before its start."""
        return self.agent._core if self.agent is not None else None

    @property
    def is_ending(self) -> bool:
        return self._stop.is_set()

    @property
    def is_serving(self) -> bool:
        """Whether the state of one of its rounds is applied."""
        return self.core is not None and self.core.sync.progress.in_force is not None

    @property
    def has_served(self) -> bool:
        """Whether any of its rounds was ever applied."""
        return self.served_at < float("inf")

    def note_served(self) -> None:
        """Record that a round has been applied; only the first call counts."""
        self.served_at = min(self.served_at, self.world.timeline.now)

    def stop(self) -> None:
        """Stop the agent in an orderly way."""
        self.ends_since = min(self.ends_since, self.world.timeline.now)
        self._stop.set()

    async def run(self) -> int:
        """Serve until the agent is stopped or fails; return its exit status."""
        world, plan = self.world, self.world.plan
        settings, is_later = plan.settings, world.agents[0] is not self
        options = Options(
            node_name=NODE,
            proxy_ports=plan.proxy_ports,
            external_ip_networks=with_six(settings.external_networks),
            node_port_networks=with_six(settings.node_port_networks),
            cluster_networks=with_six((POD_NETWORK,)),
            only_own_pods=settings.has_only_own_pods,
            allow_node_endpoints=settings.allows_node_endpoints,
            min_sync_period_s=settings.min_period_s,
            state_max_age_s=settings.state_max_age_s,
            path=DataPath(plan.later_path if is_later else settings.path),
            tuning=_TUNING,
            workers=plan.later_workers if is_later else plan.workers,
            state_dir=FOLDER if plan.keeps_state else "",
            hand_over=(lambda _sock: None) if plan.keeps_workers else None,
            previous_drain_s=DRAIN_S,
        )
        agent = self.agent = Agent("nftables", world.make_source(), options, LACKS_NOTHING)
        try:
            await agent.start()
        except UserspaceProxyError as exc:
            world.agent_failed(self, exc)
            return 1
        self.is_started = True
        if self._stop.is_set():
            # A stop requested during the start takes effect only now.
            self.ends_since = world.timeline.now
        stopping = self.process.loop.create_task(self._stop.wait())
        failing = self.process.loop.create_task(agent.failed())
        await asyncio.wait([stopping, failing], return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            world.agent_failed(self, failing.result())
            await agent.stop()
            return 1
        await agent.stop(drain_s=DRAIN_S)
        return 0
